#include "diagnostics/coherence.h"

#include <math.h>

// The minimum of ratios first..last (lags), where each has a value.
static bool smallest_ratio(const struct gd_values *values, uint32_t first, uint32_t last, double *ret_smallest) {
    double smallest = (double)INFINITY;
    for (uint32_t lag = first; lag <= last; lag++) {
        enum gd_tag tag = GD_TAG_RATIO_LAG + lag - 1;
        if (!gd_values_has(values, tag))
            return false;
        if (values->value[tag] < smallest)
            smallest = values->value[tag];
    }
    *ret_smallest = smallest;
    return true;
}

static uint32_t leading_positive_ratios(const struct gd_values *values, uint32_t max_lag) {
    uint32_t lag = 0;
    while (lag < max_lag && values->value[GD_TAG_RATIO_LAG + lag] > 0.0)
        lag++;
    return lag;
}

// Not where elements were beyond 1.8e19: their squares overflow.
static bool is_finite_lag(const struct gd_step_sums *sums, uint32_t index) {
    return isfinite(sums->dot[index]) && isfinite(sums->squared_norm_now[index]) &&
           isfinite(sums->squared_norm_past[index]);
}

bool gd_coherence_cosine(const struct gd_step_sums *sums, uint32_t index, double *ret_cosine) {
    double now = sums->squared_norm_now[index], past = sums->squared_norm_past[index];
    if (!is_finite_lag(sums, index) || !(now > 0.0) || !(past > 0.0))
        return false;
    *ret_cosine = sums->dot[index] / (sqrt(now) * sqrt(past));
    return true;
}

static void set_lag(const struct gd_step_sums *sums, uint32_t index, struct gd_values *values) {
    double cosine;
    if (gd_coherence_cosine(sums, index, &cosine))
        gd_values_set(values, GD_TAG_COSINE_LAG + index, cosine);
    if (is_finite_lag(sums, index) && sums->squared_norm_now[index] > 0.0)
        gd_values_set(values, GD_TAG_RATIO_LAG + index, sums->dot[index] / sums->squared_norm_now[index]);
}

void gd_coherence_values(const struct gd_step_sums *sums, uint32_t max_lag, uint32_t known_lags,
                         struct gd_values *values) {
    for (uint32_t i = 0; i < max_lag; i++)
        if (known_lags >> i & 1)
            set_lag(sums, i, values);

    double smallest;
    if (smallest_ratio(values, 1, max_lag - 1, &smallest) && sums->squared_norm > 0.0)
        gd_values_set(values, GD_TAG_MU, smallest < 1.0 ? smallest : 1.0); // lag 0 has ratio 1
    if (smallest_ratio(values, 1, max_lag, &smallest)) {
        gd_values_set(values, GD_TAG_MU_PAST, smallest);
        gd_values_set(values, GD_TAG_TOLERABLE_STALENESS, leading_positive_ratios(values, max_lag));
    }
}
