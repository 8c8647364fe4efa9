#include "diagnostics/curvature.h"

#include <math.h>

void gd_curvature_values(const struct gd_difference_sums *sums, double learning_rate, double *lipschitz_max,
                         struct gd_side_values *values) {
    if (!(sums->squared_step > 0.0))
        return;
    double secant = sums->product / sums->squared_step;
    double lipschitz = sqrt(sums->other_squared_step) / sqrt(sums->squared_step);
    gd_side_values_set(values, GD_SIDE_TAG_SECANT, secant);
    gd_side_values_set(values, GD_SIDE_TAG_LIPSCHITZ, lipschitz);
    gd_side_values_set(values, GD_SIDE_TAG_STEP_TIMES_SECANT, learning_rate * secant);
    if (lipschitz > *lipschitz_max && isfinite(lipschitz))
        *lipschitz_max = lipschitz;
}

void gd_staleness_bound(double mu, uint32_t staleness, double lipschitz_max, uint64_t optimizer_step,
                        struct gd_side_values *values) {
    if (mu > 0.0 && lipschitz_max > 0.0 && optimizer_step > 0)
        gd_side_values_set(values, GD_SIDE_TAG_LR_BOUND,
                           mu / (staleness * lipschitz_max * sqrt((double)optimizer_step)));
}
