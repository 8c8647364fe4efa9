// Start vectors: the optimiser's state as a trainer's optimiser holds it becomes the state as the kernels keep it.
#pragma once

#include <stddef.h>

// Roots of the second moments `v`, less `initial` (adagrad's accumulator at its start, which is not kept). What is not
// above it, or NaN, was never counted: 0. Pure; `elems` elements, not overlapping.
void gd_start_roots(const float *v, float initial, size_t elems, float *ret_root);

// Roots of the maxima `v_max`, none below `root` x `scale`, which a maximum that is one cannot be.
void gd_start_maxima(const float *v_max, const float *root, float scale, size_t elems, float *ret_maximum);
