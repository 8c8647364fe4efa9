// The effective steps of single coordinates, where the kernels give their sums.
#pragma once

#include <stddef.h>

#include "kernels.h"

// Of elements `first` to `first + elems` of a chunk whose state an analyse() has moved on and which is measured:
//     e = numerator / (sqrt(vhat) + eps)
// in float, from the root (or the maximum's) after this step, as kernels.h has it, but for the last bits: the kernels
// share their divisions. 0 where the coordinate is not active. Thread-safe.
void gd_step_sizes(const struct gd_chunk *chunk, size_t first, size_t elems, float *restrict ret_sizes);
