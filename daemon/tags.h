// The names under which TensorBoard shows what the daemon computes, and the sentence shown beside each chart.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "step_sums.h"

// Every scalar tag of one vector stream. The numeric values are kept in the runs' shared memory: append only.
enum gd_tag {
    GD_TAG_COSINE_LAG = 0, // + m - 1 for lag m
    GD_TAG_RATIO_LAG = GD_LAG_MAX,
    GD_TAG_MU = 2 * GD_LAG_MAX,
    GD_TAG_MU_PAST,
    GD_TAG_TOLERABLE_STALENESS,

    GD_TAG_B_OVER_A,
    GD_TAG_C_OVER_A,
    GD_TAG_SLOPE_B_OVER_A,
    GD_TAG_SLOPE_C_OVER_A,
    GD_TAG_OSCILLATION,
    GD_TAG_RMS,
    GD_TAG_A,
    GD_TAG_B,
    GD_TAG_C,
    GD_TAG_D,
    GD_TAG_ACTIVE_FRACTION,
    GD_TAG_STEP_SIZE_MIN,
    GD_TAG_STEP_SIZE_MEAN,
    GD_TAG_STEP_SUM_A,
    GD_TAG_STEP_SUM_B,
    GD_TAG_STEP_SUM_C,
    GD_TAG_STEP_SUM_D,

    GD_TAG_NORM,
    GD_TAG_NORM_MAX,
    GD_TAG_MAX_ABS,
    GD_TAG_ZERO_FRACTION,
    GD_TAG_NON_FINITE,

    GD_TAG_OBSERVED_FRACTION,

    GD_TAG_STALENESS_OBSERVED,
    GD_TAG_NOISE_S, // of each three in this order
    GD_TAG_NOISE_G2,
    GD_TAG_NOISE_B_SIMPLE,
    GD_TAG_NOISE_SINGLE_S,
    GD_TAG_NOISE_SINGLE_G2,
    GD_TAG_NOISE_SINGLE_B_SIMPLE,
    GD_TAG_FISHER_TRACE,
    GD_TAG_FISHER_TRACE_EMPIRICAL,
    GD_TAG_EFFECTIVE_RANK,
    GD_TAG_TOP_SHARE,

    GD_TAG_COUNT,
};

// What is shown otherwise than as a scalar.
#define GD_TAG_COSINE_MATRIX "coherence/cosine_matrix"
#define GD_TAG_EIGENVALUES "subspace/eigenvalues"
#define GD_TAG_CRITICAL_PERIOD "fisher/critical_period"
#define GD_TAG_PAGE "gradientd/how_to_read"
#define GD_TAG_GRADIENT_HISTOGRAM "gradient/log2_abs"
#define GD_TAG_STEP_SIZE_HISTOGRAM "adam/log2_step_size"
#define GD_TAG_LAYOUT "custom_scalars__config__" // as its plugin has it, and those of HParams
#define GD_TAGS_SESSION "_hparams_/"
#define GD_TAG_SESSION_START GD_TAGS_SESSION "session_start_info"
#define GD_TAG_SESSION_END GD_TAGS_SESSION "session_end_info"

enum { GD_TAG_NAME_BYTES = 48 }; // the longest own tag, with its terminating 0

struct gd_tag_text {
    char name[GD_TAG_NAME_BYTES];
    const char *description; // one sentence with the formula, markdown; static
};

// Fills `ret_text` for `tag` < GD_TAG_COUNT.
void gd_tag_describe(enum gd_tag tag, struct gd_tag_text *ret_text);

// Whether shadow rules have the tag too: adam/<x>, as shadow_<rule>/<x>.
bool gd_tag_is_adam(enum gd_tag tag);
enum { GD_ADAM_TAGS = GD_TAG_STEP_SUM_A - GD_TAG_B_OVER_A }; // so many of them

// Fills `ret_text` for such a tag of a shadow rule (enum gd_rule).
void gd_tag_describe_shadow(unsigned rule, enum gd_tag tag, struct gd_tag_text *ret_text);

// What a rule (enum gd_rule) is called.
const char *gd_rule_name(unsigned rule);

// Whether a name lies where the daemon writes what is no scalar of every run: tags whose names depend on the run, text,
// histograms, what its plugins are told. Whether they are written or not, no trainer may use them.
bool gd_tag_is_reserved(const char *name);

// A set of named values; a tag without a value has none to show (which is not zero).
struct gd_values {
    uint64_t present[(GD_TAG_COUNT + 63) / 64];
    double value[GD_TAG_COUNT];
};

static inline bool gd_values_has(const struct gd_values *values, enum gd_tag tag) {
    return values->present[tag / 64] >> (tag % 64) & 1;
}

static inline void gd_values_set(struct gd_values *values, enum gd_tag tag, double value) {
    values->present[tag / 64] |= UINT64_C(1) << (tag % 64);
    values->value[tag] = value;
}
