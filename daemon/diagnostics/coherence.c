#include "diagnostics/coherence.h"

#include <math.h>
#include <stdbool.h>

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

static void set_lag(const struct gd_step_sums *sums, uint32_t index, struct gd_values *values) {
    double dot = sums->dot[index];
    double now = sums->squared_norm_now[index];
    double past = sums->squared_norm_past[index];

    if (!isfinite(dot) || !isfinite(now) || !isfinite(past))
        return; // elements beyond 1.8e19, whose squares overflow
    if (now > 0.0 && past > 0.0)
        gd_values_set(values, GD_TAG_COSINE_LAG + index, dot / (sqrt(now) * sqrt(past)));
    if (now > 0.0)
        gd_values_set(values, GD_TAG_RATIO_LAG + index, dot / now);
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
