#include "side_tags.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define COHERENCE_PAPER "Dai et al., arXiv 1810.03264"
#define FUNCTION_PAPER "Benjamin, Rolnick and Kording, arXiv 1805.08289"
#define PROBE "the gradient on the trainer's fixed probe samples"
#define STRIDES "m strides of the stream earlier"
#define START                                                                                                          \
    "the start that the trainer handed over or else the run's first snapshot of the stream, at the step that the tag " \
    "names where that is not the run's first"

static const char cosine_description[] =
    "Gradient coherence on fixed samples: the cosine between " PROBE " now and the one " STRIDES ", `<g_t, g_{t-m}> / "
    "(|g_t| |g_{t-m}|)` with m the number in the tag; free of minibatch noise, so it says how fast the landscape under "
    "the trajectory turns (the normalised form of the coherence in " COHERENCE_PAPER ", Definition 1).";

static const char ratio_description[] =
    "Gradient coherence as the paper defines it: `<g_t, g_{t-m}> / |g_t|^2` of " PROBE " and the one " STRIDES
    ", with m the number in the tag; above 0 a gradient that is m strides stale still points downhill (" COHERENCE_PAPER
    ", Definition 1).";

static const struct gd_tag_text texts[GD_SIDE_TAG_COUNT - GD_SIDE_TAG_MU] = {
#define TEXT(tag) [GD_SIDE_TAG_##tag - GD_SIDE_TAG_MU]
    TEXT(MU) = {"coherence_probe/mu",
                "The coherence mu of Definition 1 in " COHERENCE_PAPER ", on fixed samples as there: the minimum "
                "of `<g_t, g_{t-m}> / |g_t|^2` over `m = 0..M-1` of " PROBE
                ", with M the run's `max_lag`; it has no value until every lag of the window has one."},
    TEXT(
        MU_PAST) = {"coherence_probe/mu_past",
                    "The minimum of `<g_t, g_{t-m}> / |g_t|^2` over `m = 1..M` of " PROBE
                    ", that is `coherence_probe/mu` without the current gradient and with lag M (after " COHERENCE_PAPER
                    ")."},
    TEXT(TOLERABLE_STALENESS) =
        {"coherence_probe/tolerable_staleness",
         "The largest m for which `<g_t, g_{t-1}>`, ..., `<g_t, g_{t-m}>` are all positive, from 0 to M, of " PROBE
         ": how many of the stream's strides old a gradient may be and still point downhill (after " COHERENCE_PAPER
         ")."},
    TEXT(LR_BOUND) =
        {"staleness/lr_bound",
         "The learning rate up to which the theorem of " COHERENCE_PAPER " covers a staleness of s = M (the run's "
         "`max_lag`), `mu / (s L sqrt(t))`, with mu from `coherence_probe/mu` while it is above 0, L the largest "
         "`curvature/lipschitz` so far and t the optimiser's step: a sufficient condition, and usually a cautious "
         "one."},
    TEXT(SECANT) =
        {"curvature/secant",
         "The curvature along the last step, `<dx, dg> / |dx|^2` with dx the change of the parameters and dg that of "
         "the probe gradient since one stride ago: a Rayleigh quotient of the mean Hessian between the two points, and "
         "so a lower bound of its largest eigenvalue; below 0 the step crossed a concave direction."},
    TEXT(LIPSCHITZ) =
        {"curvature/lipschitz",
         "How fast the probe gradient changes along the last step, `|dg| / |dx|` with dx the change of the parameters "
         "and dg that of the probe gradient since one stride ago: a lower bound of the gradient's Lipschitz constant, "
         "at least `|curvature/secant|`."},
    TEXT(STEP_TIMES_SECANT) =
        {"curvature/step_times_secant",
         "The learning rate times `curvature/secant`, `a_t <dx, dg> / |dx|^2`, for sgd whose parameter groups share "
         "one rate: plain gradient descent is unstable along a direction where this stays above 2, and often hovers "
         "there (Cohen et al., arXiv 2103.00065)."},
    TEXT(PARAMETERS_STEP) = {"parameters/l2_step",
                             "How far the parameters have moved since one stride of the stream ago, `|x_t - "
                             "x_before|`, summed as differences."},
    TEXT(PARAMETERS_FROM_START) = {"parameters/l2_from_%s",
                                   "How far the parameters are from " START ", `|x_t - x_start|`, summed as "
                                   "differences."},
    TEXT(UPDATE_RATIO) =
        {"parameters/update_ratio",
         "The last movement relative to the parameters' size, `|x_t - x_before| / |x_t|`: about 1e-3 a step is common "
         "in healthy training; far above it weights are thrown about, far below it they hardly learn."},
    TEXT(FUNCTION_STEP) =
        {"function/l2_step",
         "How far the network's outputs on the fixed probe examples have moved since one stride of the stream ago, "
         "`sqrt(mean_i |f_t(x_i) - f_before(x_i)|^2)`: distance in the space of functions, which is what learning is "
         "about (" FUNCTION_PAPER ")."},
    TEXT(FUNCTION_FROM_START) = {"function/l2_from_%s",
                                 "How far the network's outputs on the fixed probe examples are from " START
                                 ", `sqrt(mean_i |f_t(x_i) - f_start(x_i)|^2)` (" FUNCTION_PAPER ")."},
    TEXT(PER_PARAMETER_STEP) =
        {"function/per_parameter_step",
         "`function/l2_step / parameters/l2_step`, where both streams have the same stride: how much function a step "
         "in parameter space buys; it changes over training, which is why parameter distance is a poor stand-in for "
         "function distance (" FUNCTION_PAPER ")."},
    TEXT(PER_PARAMETER_FROM_START) =
        {"function/per_parameter_from_%s",
         "The function's distance from the start divided by the parameters', `function/l2_from_start / "
         "parameters/l2_from_start`, where both streams began at the same step (" FUNCTION_PAPER ")."},
#undef TEXT
};

void gd_side_tag_describe(enum gd_side_tag tag, int64_t first_step, struct gd_tag_text *ret_text) {
    assert(tag < GD_SIDE_TAG_COUNT);

    if (tag < GD_SIDE_TAG_MU) {
        bool is_ratio = tag >= GD_SIDE_TAG_RATIO_LAG;
        snprintf(ret_text->name, sizeof(ret_text->name), "coherence_probe/%s_lag%u", is_ratio ? "ratio" : "cosine",
                 tag - (is_ratio ? GD_SIDE_TAG_RATIO_LAG : GD_SIDE_TAG_COHERENCE) + 1u);
        ret_text->description = is_ratio ? ratio_description : cosine_description;
        return;
    }
    const struct gd_tag_text *text = &texts[tag - GD_SIDE_TAG_MU];
    const char *place = strstr(text->name, "%s");
    int bytes = place ? (int)(place - text->name) : (int)strlen(text->name);
    bytes = snprintf(ret_text->name, sizeof(ret_text->name), "%.*s", bytes, text->name);
    char *end = ret_text->name + bytes;
    size_t left = sizeof(ret_text->name) - (size_t)bytes;
    if (place && first_step > 1)
        snprintf(end, left, "step%lld", (long long)first_step);
    else if (place)
        snprintf(end, left, "start");
    ret_text->description = text->description;
}

void gd_side_values_set(struct gd_side_values *values, enum gd_side_tag tag, double value) {
    if (!isfinite(value))
        return;
    values->present[tag / 64] |= UINT64_C(1) << (tag % 64);
    values->value[tag] = value;
}
