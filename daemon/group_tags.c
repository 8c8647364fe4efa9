#include "group_tags.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static_assert(GD_GROUP_QUANTITIES <= 64, "a bit each");

#define ADAM_PAPER "Chen et al., arXiv 1808.02941"
#define BIT(quantity) (UINT64_C(1) << (quantity))

static const char cosine_lag_description[] =
    "Gradient coherence of this group: the cosine between its gradient and the one m strides (steps, by default) "
    "earlier, `<g_t, g_{t-m}> / (|g_t| |g_{t-m}|)` with m the number in the tag (normalised form of the coherence in "
    "Dai et al., arXiv 1810.03264).";

static const char fisher_description[] =
    "This group's part of the trace of the Fisher information, `E|g|^2 = S + G2` for one example, from the squared "
    "norms "
    "of its gradient over this step's batch and over smaller ones, so that all groups' add up to `fisher/trace` or, "
    "where "
    "the labels are the data's, to `fisher/trace_empirical` (Achille et al., arXiv 1711.08856).";

static const struct {
    const char *name;
    const char *description;
} texts[GD_GROUP_COSINE_LAG] = {
    [GD_GROUP_NORM] =
        {
            "norm",
            "The Euclidean norm of this group's gradient, `|g_t| = sqrt(sum g^2)`, as in `gradient/norm`.",
        },
    [GD_GROUP_MAX_ABS] =
        {
            "max_abs",
            "The largest finite element of this group's gradient by size, `max |g_i|`, over all steps since the point "
            "before this one.",
        },
    [GD_GROUP_ZERO_FRACTION] =
        {
            "zero_fraction",
            "The share of this group's elements that are exactly 0, `zeros / elements`.",
        },
    [GD_GROUP_NON_FINITE] =
        {
            "non_finite",
            "The number of this group's elements that are NaN or infinite, `sum [g_i not finite]`, in the worst step "
            "since the point before this one.",
        },
    [GD_GROUP_B_OVER_A] =
        {
            "B_over_A",
            "`B/A = sum (e_t g_t)^2 / sum e_t` over this group's coordinates with a gradient other than 0 and all "
            "steps so far, as in `adam/B_over_A` (" ADAM_PAPER ").",
        },
    [GD_GROUP_C_OVER_A] =
        {
            "C_over_A",
            "`C/A = sum |e_t - e_{t-1}| / sum e_t` over this group's coordinates with a gradient other than 0 and all "
            "steps so far, as in `adam/C_over_A` (" ADAM_PAPER ").",
        },
    [GD_GROUP_STEP_SIZE_MEAN] =
        {
            "step_size_mean",
            "The mean of `e_t = a_t / (sqrt(vhat_t) + eps)` over this group's coordinates with a gradient other than 0 "
            "in this step.",
        },
};

uint64_t gd_group_quantities(bool all, uint32_t max_lag) {
    if (!all)
        return BIT(GD_GROUP_NORM) | BIT(GD_GROUP_COSINE_LAG) | BIT(GD_GROUP_FISHER);
    return (BIT(GD_GROUP_COSINE_LAG + max_lag) - 1) | BIT(GD_GROUP_FISHER);
}

void gd_group_tag_describe(enum gd_group_quantity quantity, struct gd_tag_text *ret_text) {
    assert(quantity < GD_GROUP_QUANTITIES);

    if (quantity == GD_GROUP_FISHER) {
        snprintf(ret_text->name, sizeof(ret_text->name), "group_fisher/");
        ret_text->description = fisher_description;
    } else if (quantity >= GD_GROUP_COSINE_LAG) {
        snprintf(ret_text->name, sizeof(ret_text->name), "group_cosine_lag%u/", quantity - GD_GROUP_COSINE_LAG + 1u);
        ret_text->description = cosine_lag_description;
    } else {
        snprintf(ret_text->name, sizeof(ret_text->name), "group_%s/", texts[quantity].name);
        ret_text->description = texts[quantity].description;
    }
}

bool gd_group_tag_is(const char *name) {
    if (strncmp(name, "group_", strlen("group_")) != 0)
        return false;
    for (enum gd_group_quantity quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++) {
        struct gd_tag_text text;
        gd_group_tag_describe(quantity, &text);
        if (strncmp(name, text.name, strlen(text.name)) == 0)
            return true;
    }
    return false;
}
