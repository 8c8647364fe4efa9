// Counts by exponent as a histogram of log2.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "event_tensor.h"
#include "kernels/exponents.h"

// Bins of width 1 up to the largest exponent there is; what is smaller than the first bin is counted in it. Zeros,
// subnormals and what is not finite are left out. Returns false when nothing is left; then the bins stay as they are.
bool gd_log2_histogram(const uint64_t counts[static GD_EXPONENTS],
                       struct gd_histogram_bin ret_bins[static GD_HISTOGRAM_BINS]);
