// The names under which TensorBoard shows what comes of the streams beside the gradient.
#pragma once

#include <stdint.h>

#include "tags.h"

// The numeric values are kept in the runs' shared memory: append only.
enum gd_side_tag {
    GD_SIDE_TAG_COHERENCE = 0, // up to GD_TAG_TOLERABLE_STALENESS: that tag of the probe gradient, such as ...
    GD_SIDE_TAG_RATIO_LAG = GD_TAG_RATIO_LAG,
    GD_SIDE_TAG_MU = GD_TAG_MU,
    GD_SIDE_TAG_MU_PAST = GD_TAG_MU_PAST,
    GD_SIDE_TAG_TOLERABLE_STALENESS = GD_TAG_TOLERABLE_STALENESS,
    GD_SIDE_TAG_LR_BOUND = GD_TAG_TOLERABLE_STALENESS + 1,
    GD_SIDE_TAG_SECANT,
    GD_SIDE_TAG_LIPSCHITZ,
    GD_SIDE_TAG_STEP_TIMES_SECANT,

    GD_SIDE_TAG_PARAMETERS_STEP,
    GD_SIDE_TAG_PARAMETERS_FROM_START,
    GD_SIDE_TAG_UPDATE_RATIO,

    GD_SIDE_TAG_FUNCTION_STEP,
    GD_SIDE_TAG_FUNCTION_FROM_START,
    GD_SIDE_TAG_PER_PARAMETER_STEP,
    GD_SIDE_TAG_PER_PARAMETER_FROM_START,

    GD_SIDE_TAG_COUNT,
};

enum { GD_SIDE_TAG_WORDS = (GD_SIDE_TAG_COUNT + 63) / 64 };

// Fills `ret_text`. A run whose first step is beyond 1 says in its tags since when what is measured from the start is.
void gd_side_tag_describe(enum gd_side_tag tag, int64_t first_step, struct gd_tag_text *ret_text);

struct gd_side_values {
    uint64_t present[GD_SIDE_TAG_WORDS];
    double value[GD_SIDE_TAG_COUNT];
};

static inline bool gd_side_values_has(const struct gd_side_values *values, enum gd_side_tag tag) {
    return values->present[tag / 64] >> (tag % 64) & 1;
}

// Leaves the tag without a value where there is no finite one.
void gd_side_values_set(struct gd_side_values *values, enum gd_side_tag tag, double value);
