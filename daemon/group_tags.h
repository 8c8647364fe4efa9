// The tags of what is shown group by group: group_<quantity>/<name of the series>.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tags.h"

// The numeric values are kept in the runs' shared memory: append only.
enum gd_group_quantity {
    GD_GROUP_NORM,
    GD_GROUP_MAX_ABS,
    GD_GROUP_ZERO_FRACTION,
    GD_GROUP_NON_FINITE,
    GD_GROUP_B_OVER_A,
    GD_GROUP_C_OVER_A,
    GD_GROUP_STEP_SIZE_MEAN,
    GD_GROUP_COSINE_LAG,                                // + m - 1 for lag m
    GD_GROUP_FISHER = GD_GROUP_COSINE_LAG + GD_LAG_MAX, // where norms of smaller batches are given per group
    GD_GROUP_QUANTITIES,
};

// The quantities a run shows, a bit each: norm, cosine_lag1 and fisher, or with `all` every one up to lag `max_lag`.
uint64_t gd_group_quantities(bool all, uint32_t max_lag);

// Fills `ret_text`; its name is the tag up to and with the '/', the series' name comes after it.
void gd_group_tag_describe(enum gd_group_quantity quantity, struct gd_tag_text *ret_text);

// Whether a name begins like one of these tags.
bool gd_group_tag_is(const char *name);

// One series' values at one step.
struct gd_group_values {
    uint64_t present; // bit per quantity
    double value[GD_GROUP_QUANTITIES];
};

static inline void gd_group_values_set(struct gd_group_values *values, enum gd_group_quantity quantity, double value) {
    values->present |= UINT64_C(1) << quantity;
    values->value[quantity] = value;
}
