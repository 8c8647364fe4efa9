#include "step_sums.h"

#include <math.h>

void gd_step_sums_init(struct gd_step_sums *sums) {
    gd_step_sums_init_lags(sums, GD_LAG_MAX);
}

void gd_step_sums_init_lags(struct gd_step_sums *sums, uint32_t max_lag) {
    sums->elements = sums->zeros = sums->non_finite = sums->active = sums->relative_elements = 0;
    sums->squared_norm = sums->A = sums->B = sums->C = sums->D = sums->relative_square = 0.0;
    sums->max_abs = 0.0f;
    sums->step_size_min = INFINITY;
    sums->first_non_finite_group = UINT32_MAX;
    for (uint32_t i = 0; i < max_lag; i++)
        sums->dot[i] = sums->squared_norm_now[i] = sums->squared_norm_past[i] = 0.0;
}

void gd_step_sums_merge(struct gd_step_sums *sums, const struct gd_step_sums *part, uint32_t max_lag) {
    sums->elements += part->elements;
    sums->zeros += part->zeros;
    sums->non_finite += part->non_finite;
    if (part->max_abs > sums->max_abs)
        sums->max_abs = part->max_abs;
    sums->squared_norm += part->squared_norm;

    for (uint32_t i = 0; i < max_lag; i++) {
        sums->dot[i] += part->dot[i];
        sums->squared_norm_now[i] += part->squared_norm_now[i];
        sums->squared_norm_past[i] += part->squared_norm_past[i];
    }

    sums->active += part->active;
    sums->A += part->A;
    sums->B += part->B;
    sums->C += part->C;
    sums->D += part->D;
    sums->relative_square += part->relative_square;
    sums->relative_elements += part->relative_elements;
    if (part->step_size_min < sums->step_size_min)
        sums->step_size_min = part->step_size_min;
    if (part->first_non_finite_group < sums->first_non_finite_group)
        sums->first_non_finite_group = part->first_non_finite_group;
}
