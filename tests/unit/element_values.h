// Elements as IEEE 754 words them, apart from the daemon's own widening.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "element_type.h"

// What the element with these bits is worth.
double element_value(enum gd_element_type type, uint32_t bits);

// The element nearest to `value` that is not larger in size. Infinities and NaN stay what they are.
uint32_t element_bits(enum gd_element_type type, float value);

// Element i of a buffer.
void element_store(enum gd_element_type type, void *elements, size_t i, uint32_t bits);
