// Which steps of our own series are written: all below 10,000, then one in every 10^(floor(log10 s) - 3), so that a
// series keeps four significant digits of its step and grows by 9,000 points a decade.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// The spacing at step s >= 0.
int64_t gd_thinning_stride(int64_t step);

// Whether `step` is the first snapshot of its window, `before` being the snapshot ahead of it (-1: none). Pure.
bool gd_thinning_writes(int64_t before, int64_t step);
