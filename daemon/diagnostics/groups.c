#include "diagnostics/groups.h"

#include <math.h>

#include "diagnostics/adam.h"
#include "diagnostics/coherence.h"

static void raise_to(double *maximum, double value) {
    if (value > *maximum)
        *maximum = value;
}

static void set_adam(struct gd_series_totals *totals, const struct gd_step_sums *sums, struct gd_group_values *values) {
    gd_adam_add_finite(&totals->A, sums->A);
    gd_adam_add_finite(&totals->B, sums->B);
    gd_adam_add_finite(&totals->C, sums->C);
    if (totals->A > 0.0) {
        gd_group_values_set(values, GD_GROUP_B_OVER_A, totals->B / totals->A);
        gd_group_values_set(values, GD_GROUP_C_OVER_A, totals->C / totals->A);
    }
    if (sums->active > 0)
        gd_group_values_set(values, GD_GROUP_STEP_SIZE_MEAN, sums->A / (double)sums->active);
}

void gd_groups_values(struct gd_series_totals *totals, const struct gd_step_sums *sums, bool measured, uint32_t max_lag,
                      struct gd_group_values *ret_values) {
    ret_values->present = 0;
    if (sums->elements == 0)
        return;
    raise_to(&totals->max_abs, (double)sums->max_abs);
    raise_to(&totals->non_finite, (double)sums->non_finite);
    gd_group_values_set(ret_values, GD_GROUP_NORM, sqrt(sums->squared_norm));
    gd_group_values_set(ret_values, GD_GROUP_MAX_ABS, totals->max_abs);
    gd_group_values_set(ret_values, GD_GROUP_NON_FINITE, totals->non_finite);
    gd_group_values_set(ret_values, GD_GROUP_ZERO_FRACTION, (double)sums->zeros / (double)sums->elements);
    if (measured)
        set_adam(totals, sums, ret_values);
    for (uint32_t i = 0; i < max_lag; i++) {
        double cosine;
        if (gd_coherence_cosine(sums, i, &cosine))
            gd_group_values_set(ret_values, GD_GROUP_COSINE_LAG + i, cosine);
    }
}
