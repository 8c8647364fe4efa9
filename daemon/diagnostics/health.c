#include "diagnostics/health.h"

#include <math.h>

static void raise_to(double *maximum, double value) {
    if (value > *maximum)
        *maximum = value;
}

void gd_health_values(struct gd_health_state *state, const struct gd_step_sums *sums, struct gd_values *values) {
    if (sums->elements == 0) // every group is absent, which is not zero
        return;
    double norm = sqrt(sums->squared_norm);
    raise_to(&state->norm_max, norm);
    raise_to(&state->max_abs, (double)sums->max_abs);
    raise_to(&state->non_finite, (double)sums->non_finite);

    gd_values_set(values, GD_TAG_NORM, norm);
    gd_values_set(values, GD_TAG_NORM_MAX, state->norm_max);
    gd_values_set(values, GD_TAG_MAX_ABS, state->max_abs);
    gd_values_set(values, GD_TAG_NON_FINITE, state->non_finite);
    gd_values_set(values, GD_TAG_ZERO_FRACTION, (double)sums->zeros / (double)sums->elements);
}
