// How long the kernels' calls take.
#pragma once

#include "kernels/kernels.h"

enum { VARIANTS_MAX = 8 };

// Prints a table: a line per type and kind of call; per variant the time an element takes, and that as a part of what
// kernels[0], the reference, takes. A time is the median of `repetitions`, taken in turns.
void time_kernels(const struct gd_kernels *const *kernels, size_t n_kernels, int repetitions);
