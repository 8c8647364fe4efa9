// Random elements, drawn once: a call takes its contents from a random place among them.
#pragma once

#include "kernel_values.h"

// Draws them all.
void pools_init(uint64_t seed);

// `elems` <= GD_CHUNK_ELEMS elements at a random place.
const void *pool_elements(enum gd_element_type type, enum distribution distribution, size_t elems, uint64_t *state);

// As many roots of second moments, and their maxima.
void pool_state(size_t elems, uint64_t *state, const float **ret_roots, const float **ret_maxima);
