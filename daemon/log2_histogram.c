#include "log2_histogram.h"

enum { EXPONENT_BIAS = 127, EXPONENT_MIN = GD_EXPONENT_SMALL + 1, EXPONENT_MAX = GD_EXPONENT_SPECIAL - 1 };

bool gd_log2_histogram(const uint64_t counts[static GD_EXPONENTS],
                       struct gd_histogram_bin ret_bins[static GD_HISTOGRAM_BINS]) {
    int top = EXPONENT_MAX;
    while (top >= EXPONENT_MIN && counts[top] == 0)
        top--;
    if (top < EXPONENT_MIN)
        return false;

    int first = top - (GD_HISTOGRAM_BINS - 1);
    for (int bin = 0; bin < GD_HISTOGRAM_BINS; bin++) {
        double left = first + bin - EXPONENT_BIAS;
        ret_bins[bin] = (struct gd_histogram_bin){.left = left, .right = left + 1.0};
    }
    for (int exponent = EXPONENT_MIN; exponent <= top; exponent++)
        ret_bins[exponent < first ? 0 : exponent - first].count += (double)counts[exponent];
    return true;
}
