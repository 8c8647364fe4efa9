#include "tags.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { SHADOW_RULES = 7, RULES = 8 }; // the last one, other, is no shadow

#define COHERENCE_PAPER "Dai et al., arXiv 1810.03264"
#define NOISE_PAPER "McCandlish et al., arXiv 1812.06162"
#define FISHER_PAPER "Achille et al., arXiv 1711.08856"
#define ADAM_PAPER "Chen et al., arXiv 1808.02941"

// Said wherever the coherence paper is cited: its theorem is about another gradient than the one at hand.
#define FIXED_SAMPLES                                                                                                  \
    "the paper evaluates the gradient on a fixed set of samples, this is the gradient the trainer sends"

#define EFFECTIVE_STEP "`e_t = a_t / (sqrt(vhat_t) + eps)`"
#define ACTIVE "active coordinates (those with a gradient other than 0)"

// Ahead of what a tag of the run's own rule says.
#define SHADOW                                                                                                         \
    "As a shadow, that is what another rule (its name is in the tag) would give on the very same gradients, from "     \
    "second moments of its own, with this run's learning rates, b2 and eps, and without moving the model: "

// A tag of the run's own rule alone, and one that shadow rules have too.
#define OWN_TEXT(name, description)                                                                                    \
    { name, description, NULL }
#define ADAM_TEXT(name, description)                                                                                   \
    { "adam/" name, description, SHADOW description }

static const char cosine_lag_description[] =
    "Gradient coherence: the cosine between this gradient and the one m strides (steps, by default) earlier, `<g_t, "
    "g_{t-m}> / (|g_t| |g_{t-m}|)` with m the number in the tag; near 1 the direction persists, so delayed or reused "
    "gradients still help, near 0 successive gradients are unrelated, and below 0 they undo one another, as with too "
    "large a step (the normalised form of the coherence in " COHERENCE_PAPER "; " FIXED_SAMPLES ").";

static const char ratio_lag_description[] =
    "Gradient coherence in the paper's form, `<g_t, g_{t-m}> / |g_t|^2` with m the number in the tag: above 0 the "
    "gradient of m strides (steps, by default) ago still has a descent component now; on minibatches it is "
    "heavy-tailed, because a small `|g_t|` blows it up, so read `coherence/cosine_lag` first (" COHERENCE_PAPER
    "; " FIXED_SAMPLES ").";

static const struct {
    const char *name;
    const char *description;
    const char *shadow_description; // NULL: shadow rules have no such tag
} texts[GD_TAG_COUNT - GD_TAG_MU] = {
#define TEXT(tag) [GD_TAG_##tag - GD_TAG_MU]
    TEXT(MU) = OWN_TEXT(
        "coherence/mu",
        "The coherence mu of Definition 1 in " COHERENCE_PAPER ": the minimum of `<g_t, g_{t-m}> / |g_t|^2` over `m = "
        "0..M-1` with M the run's `max_lag`, never above 1 because m = 0 gives 1; the paper proves convergence "
        "under "
        "a staleness of M while it stays above 0, with a learning rate in proportion to it, and it has no value "
        "until "
        "every lag of the window has one (" FIXED_SAMPLES ")."),
    TEXT(MU_PAST) = OWN_TEXT(
        "coherence/mu_past",
        "The minimum of `<g_t, g_{t-m}> / |g_t|^2` over `m = 1..M`, that is `coherence/mu` with the current "
        "gradient "
        "left out and lag M taken in, so it may exceed 1: above 0 every one of the last M gradients still has a "
        "descent component now (after " COHERENCE_PAPER "; " FIXED_SAMPLES ")."),
    TEXT(TOLERABLE_STALENESS) = OWN_TEXT(
        "coherence/tolerable_staleness",
        "The largest m for which `<g_t, g_{t-1}>`, ..., `<g_t, g_{t-m}>` are all positive, from 0 to M (the run's "
        "`max_lag`; M means M or more): how old a gradient may be and still point downhill now, one step's verdict "
        "and therefore noisy, so read its smoothed level (after " COHERENCE_PAPER "; " FIXED_SAMPLES ")."),
    TEXT(B_OVER_A) = ADAM_TEXT(
        "B_over_A",
        "`B/A`, with A the sum of " EFFECTIVE_STEP " and B the sum of `(e_t g_t)^2` over " ACTIVE " and all steps so "
        "far: it has to go to 0 for the convergence proof in " ADAM_PAPER " to hold, which a constant learning rate "
        "rarely gives, and it carries the units of the loss, so read its trend and `adam/slope_B_over_A` rather "
        "than "
        "its level (the theorem has no eps and takes the smallest coordinate's step where A sums them)."),
    TEXT(C_OVER_A) = ADAM_TEXT(
        "C_over_A",
        "`C/A`, with A the sum of " EFFECTIVE_STEP " and C the sum of `|e_t - e_{t-1}|` over " ACTIVE " and all steps "
        "so far: how much effective step sizes oscillate, as a share of their size; it has to go to 0 for the "
        "convergence proof in " ADAM_PAPER " to hold, and where it settles above 0 the second moment never calms (the "
        "theorem has no eps and takes the smallest coordinate's step where A sums them)."),
    TEXT(SLOPE_B_OVER_A) = ADAM_TEXT(
        "slope_B_over_A",
        "`log2(r(n) / r(n/2))` of `r = B/A` after n applied steps, the power of n with which `adam/B_over_A` "
        "changes: "
        "-0.5 is a fall like `1/sqrt(n)`, 0 no fall at all; healthy runs show about 0 at a constant learning rate "
        "(adagrad -0.5) and -0.4 to -0.5 at a rate of `1/sqrt(t)` (adagrad near -0.1); shown from n = 16 on, n/2 "
        "interpolated (quantities of " ADAM_PAPER ")."),
    TEXT(SLOPE_C_OVER_A) = ADAM_TEXT(
        "slope_C_over_A",
        "`log2(r(n) / r(n/2))` of `r = C/A` after n applied steps, the power of n with which `adam/C_over_A` "
        "changes: "
        "healthy runs show about -1 for amsgrad and adafom, -0.55 for adagrad and -0.1 to -0.3 for adam at a "
        "constant "
        "learning rate, and -0.5 for most rules at `1/sqrt(t)`; 0 means that the oscillation does not die out; "
        "shown "
        "from n = 16 on and while C is above 0, n/2 interpolated (quantities of " ADAM_PAPER ")."),
    TEXT(OSCILLATION) = ADAM_TEXT(
        "oscillation",
        "`(C(n) - C(n/2)) / (A(n) - A(n/2))` after n applied steps, with A the sum of " EFFECTIVE_STEP " and C the "
        "sum of `|e_t - e_{t-1}|`: the share of the effective step size that changes from one step to the next, "
        "over "
        "the later half of the run and free of units; about `(1 - b2)/2` for ordinary Adam, 0.2 in the example "
        "of " ADAM_PAPER " on which Adam fails."),
    TEXT(RMS) = ADAM_TEXT(
        "rms",
        "`sqrt(mean(g_t^2 / max(vhat_t, eps^2)))` over all coordinates, where vhat already holds this gradient: "
        "near "
        "1 the second moment describes the gradients, and above about 2.3 it is out of date and a loss spike is "
        "likely in the next steps (Wortsman et al., arXiv 2304.13013); it cannot exceed `1/sqrt(1 - b2)` without "
        "bias "
        "correction."),
    TEXT(A) = ADAM_TEXT(
        "A",
        "`A = sum e_t` with " EFFECTIVE_STEP ", over " ACTIVE " and all steps so far: the accumulated effective step "
        "size, against which B, C and D are measured, with vhat and eps as the deployed optimiser uses them (the "
        "theorem in " ADAM_PAPER " has no eps and takes the smallest coordinate's step)."),
    TEXT(B) = ADAM_TEXT(
        "B",
        "`B = sum (e_t g_t)^2` with " EFFECTIVE_STEP ", over " ACTIVE " and all steps so far: the accumulated squared "
        "update an optimiser without momentum would make; convergence needs it to grow more slowly than A (first "
        "term "
        "of the bound in " ADAM_PAPER ", which has no eps)."),
    TEXT(C) = ADAM_TEXT(
        "C",
        "`C = sum |e_t - e_{t-1}|` with " EFFECTIVE_STEP ", over " ACTIVE " that have an earlier step and all steps "
        "so far: the accumulated change of effective step sizes; convergence needs it to grow more slowly than A "
        "(second term of the bound in " ADAM_PAPER ", which has no eps; changes across steps that were not seen are "
        "left out)."),
    TEXT(D) = ADAM_TEXT(
        "D",
        "`D = sum (e_t - e_{t-1})^2` with " EFFECTIVE_STEP ", over " ACTIVE " that have an earlier step and all steps "
        "so far: the accumulated squared change of effective step sizes, usually the smallest term of the bound "
        "in " ADAM_PAPER " (its third, without eps there), to be compared with A and C."),
    TEXT(ACTIVE_FRACTION) = ADAM_TEXT(
        "active_fraction",
        "The share of coordinates whose gradient is finite and not 0 in this step, `active / elements`: the sums "
        "`adam/A` to `adam/D` run over these alone, since the rest (embedding rows not in the batch, dead units) "
        "would fill A with steps that move nothing."),
    TEXT(STEP_SIZE_MIN) = ADAM_TEXT(
        "step_size_min",
        "The smallest " EFFECTIVE_STEP " of any of this step's " ACTIVE ": the step size that the convergence bound "
        "in " ADAM_PAPER " is about (without eps there); far below `adam/step_size_mean`, a few coordinates with "
        "large second moments hardly learn."),
    TEXT(STEP_SIZE_MEAN) =
        ADAM_TEXT("step_size_mean",
                  "The mean of " EFFECTIVE_STEP " over this step's " ACTIVE
                  ": the learning rate as coordinates feel it after "
                  "the second moment has rescaled it, before momentum; with sgd it is the learning rate itself."),
    TEXT(STEP_SUM_A) = OWN_TEXT("step_sums/A", "This step's term of `adam/A`: `sum e_t` with " EFFECTIVE_STEP
                                               " over " ACTIVE " (" ADAM_PAPER ")."),
    TEXT(STEP_SUM_B) = OWN_TEXT("step_sums/B", "This step's term of `adam/B`: `sum (e_t g_t)^2` with " EFFECTIVE_STEP
                                               " over " ACTIVE " (" ADAM_PAPER ")."),
    TEXT(STEP_SUM_C) =
        OWN_TEXT("step_sums/C", "This step's term of `adam/C`: `sum |e_t - e_{t-1}|` with " EFFECTIVE_STEP
                                " over " ACTIVE " that have an "
                                "earlier step; a jump shows when the step sizes were upset (" ADAM_PAPER ")."),
    TEXT(STEP_SUM_D) =
        OWN_TEXT("step_sums/D",
                 "This step's term of `adam/D`: `sum (e_t - e_{t-1})^2` with " EFFECTIVE_STEP " over " ACTIVE
                 " that have an "
                 "earlier step; large beside `step_sums/C`, a few coordinates made the change (" ADAM_PAPER ")."),
    TEXT(NORM) = OWN_TEXT(
        "gradient/norm",
        "The Euclidean norm of the gradient as the optimiser consumes it, `|g_t| = sqrt(sum g^2)`; elements that "
        "are "
        "not finite count as 0 here and are counted in `gradient/non_finite`."),
    TEXT(NORM_MAX) = OWN_TEXT(
        "gradient/norm_max",
        "The largest `|g_t| = sqrt(sum g^2)` of all steps since the point before this one: the same as "
        "`gradient/norm` while every step is written, and what keeps spikes visible once long runs are thinned."),
    TEXT(MAX_ABS) = OWN_TEXT(
        "gradient/max_abs",
        "The largest finite element of the gradient by size, `max |g_i|`, over all steps since the point before "
        "this "
        "one: close to `gradient/norm_max`, a single coordinate carries the gradient; near 65504, half precision "
        "is "
        "about to overflow."),
    TEXT(ZERO_FRACTION) = OWN_TEXT(
        "gradient/zero_fraction",
        "The share of elements that are exactly 0, `zeros / elements`: high with sparse embeddings and dead units, "
        "and rising under half precision when small gradients underflow."),
    TEXT(NON_FINITE) =
        OWN_TEXT("gradient/non_finite",
                 "The number of elements that are NaN or infinite, `sum [g_i not finite]`, in the worst step since the "
                 "point "
                 "before this one: anything but 0 is an overflow or an invalid operation upstream (now and then normal "
                 "under "
                 "loss scaling), and such elements count as 0 in every other chart."),
    TEXT(OBSERVED_FRACTION) = OWN_TEXT(
        "gradientd/observed_fraction",
        "The share of the optimiser's steps that gradientd saw, `seen / (seen + missed)`, counted from the first "
        "one it saw, or from the optimiser state that was handed over: below 1 the accumulated `adam/` sums cover "
        "only what was seen, with the second moment carried "
        "across "
        "the gaps."),
    TEXT(STALENESS_OBSERVED) = OWN_TEXT(
        "staleness/observed",
        "How many steps old the parameters were at which this gradient was computed, `step - model_version`: 0 is a "
        "gradient of the current parameters, asynchronous workers give more; compare it with "
        "`coherence_probe/tolerable_staleness` (after " COHERENCE_PAPER ")."),
    TEXT(NOISE_S) = OWN_TEXT(
        "noise/S",
        "`S = (|g_small|^2 - |g_big|^2) / (1/b_small - 1/b_big)`, an estimate of the trace of one example's gradient "
        "covariance, from this step's gradient over `b_big` examples and smaller ones of the same step over `b_small`, "
        "before clipping: free of bias but noisy, so that a single step's may be negative, and absent where a tensor "
        "is absent or has an element that is not finite (" NOISE_PAPER ")."),
    TEXT(NOISE_G2) = OWN_TEXT(
        "noise/G2",
        "`G2 = (b_big |g_big|^2 - b_small |g_small|^2) / (b_big - b_small)`, an estimate of the squared norm of the "
        "true gradient, from the same norms as `noise/S`: late in training it is small beside its noise and may be "
        "negative (" NOISE_PAPER ")."),
    TEXT(NOISE_B_SIMPLE) = OWN_TEXT(
        "noise/B_simple",
        "The simple noise scale `B = EMA(S) / EMA(G2)` in examples, averaged apart with decay 0.99 a step (corrected "
        "for their start) and then divided: far below it, twice the batch needs about half the steps, far above it "
        "about "
        "as many as before; absent while `EMA(G2)` is not above 0 (" NOISE_PAPER ")."),
    TEXT(NOISE_SINGLE_S) = OWN_TEXT(
        "noise_single/S",
        "`S = |g_t - g_{t-1}|^2 / (1/b_t + 1/b_{t-1})`, that is `b |g_t - g_{t-1}|^2 / 2` for one batch size b: what "
        "`noise/S` estimates, from successive gradients (a stride apart) before clipping, where a step has no norms "
        "of smaller batches; the parameters move in between, which adds the squared change of the true gradient "
        "(after " NOISE_PAPER ")."),
    TEXT(NOISE_SINGLE_G2) = OWN_TEXT(
        "noise_single/G2",
        "`G2 = <g_t, g_{t-1}>`, what `noise/G2` estimates, from successive gradients (a stride apart) before clipping: "
        "their noise is independent, but the step between them went along the first one's, which biases it by about "
        "`-a tr(H Sigma) / b` (a the learning rate, H the Hessian, Sigma the covariance of one example's gradient), "
        "and near a minimum makes it slightly negative (after " NOISE_PAPER ")."),
    TEXT(NOISE_SINGLE_B_SIMPLE) = OWN_TEXT(
        "noise_single/B_simple",
        "`B = EMA(S) / EMA(G2)` of `noise_single/S` and `noise_single/G2`, averaged apart with decay 0.99 a step and "
        "then divided: an estimate of `noise/B_simple` with the biases of both, which as a rule make it too large late "
        "in training; absent while `EMA(G2)` is not above 0 (after " NOISE_PAPER ")."),
    TEXT(FISHER_TRACE) = OWN_TEXT(
        "fisher/trace",
        "The trace of the Fisher information, `E|g|^2 = S + G2` for one example with `noise/S` and `noise/G2`, where "
        "the trainer draws the labels from the model's own predictions: its early rise and fall marks the critical "
        "learning period (" FISHER_PAPER ")."),
    TEXT(FISHER_TRACE_EMPIRICAL) = OWN_TEXT(
        "fisher/trace_empirical",
        "The trace of the empirical Fisher information, `E|g|^2 = S + G2` for one example with `noise/S` and "
        "`noise/G2`, taken at the data's labels: not the Fisher information, whose labels the model draws, but near it "
        "while the model fits its data; its early rise and fall marks the critical learning period (" FISHER_PAPER
        ")."),
    TEXT(EFFECTIVE_RANK) = OWN_TEXT(
        "subspace/effective_rank",
        "`(tr K)^2 / tr(K^2)` of the matrix K of dot products between the last M+1 gradients (M is the run's "
        "`max_lag`): in about how many directions they lie, from 1 (all along one line) to M+1 (all orthogonal and of "
        "one size); a tensor that is absent from a step counts as 0 in it, and there is no value until each of the M+1 "
        "was seen."),
    TEXT(TOP_SHARE) = OWN_TEXT(
        "subspace/top_share",
        "The largest eigenvalue of the matrix K of `subspace/effective_rank` as a share of its trace, `max eig(K) / tr "
        "K`: how much of the last M+1 gradients one direction holds, from 1/(M+1) to 1, so that near 1 they could be "
        "sent as one vector and M+1 factors."),
#undef TEXT
};

void gd_tag_describe(enum gd_tag tag, struct gd_tag_text *ret_text) {
    assert(tag < GD_TAG_COUNT);

    if (tag < GD_TAG_RATIO_LAG) {
        snprintf(ret_text->name, sizeof(ret_text->name), "coherence/cosine_lag%u", tag - GD_TAG_COSINE_LAG + 1u);
        ret_text->description = cosine_lag_description;
    } else if (tag < GD_TAG_MU) {
        snprintf(ret_text->name, sizeof(ret_text->name), "coherence/ratio_lag%u", tag - GD_TAG_RATIO_LAG + 1u);
        ret_text->description = ratio_lag_description;
    } else {
        snprintf(ret_text->name, sizeof(ret_text->name), "%s", texts[tag - GD_TAG_MU].name);
        ret_text->description = texts[tag - GD_TAG_MU].description;
    }
}

const char *gd_rule_name(unsigned rule) {
    static const char *const names[RULES] = {"sgd",     "adam",    "adamw",  "rmsprop",
                                             "amsgrad", "adagrad", "adafom", "other"};
    assert(rule >= 1 && rule <= RULES);
    return names[rule - 1];
}

bool gd_tag_is_adam(enum gd_tag tag) {
    return tag >= GD_TAG_MU && texts[tag - GD_TAG_MU].shadow_description;
}

void gd_tag_describe_shadow(unsigned rule, enum gd_tag tag, struct gd_tag_text *ret_text) {
    assert(gd_tag_is_adam(tag));

    snprintf(ret_text->name, sizeof(ret_text->name), "shadow_%s%s", gd_rule_name(rule),
             strchr(texts[tag - GD_TAG_MU].name, '/'));
    ret_text->description = texts[tag - GD_TAG_MU].shadow_description;
}

bool gd_tag_is_reserved(const char *name) {
    // Ends in '/': whatever begins so. The others are of no scalar, so that gd_tag_describe() does not know them.
    static const char *const reserved[] = {
        GD_TAGS_SESSION,
        "gradientd/",
        "alerts/",
        GD_TAG_LAYOUT,
        GD_TAG_GRADIENT_HISTOGRAM,
        GD_TAG_STEP_SIZE_HISTOGRAM,
        GD_TAG_COSINE_MATRIX,
        GD_TAG_EIGENVALUES,
        GD_TAG_CRITICAL_PERIOD,
    };
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        size_t bytes = strlen(reserved[i]);
        if (strncmp(name, reserved[i], bytes) == 0 && (name[bytes] == '\0' || reserved[i][bytes - 1] == '/'))
            return true;
    }
    for (unsigned rule = 1; rule <= SHADOW_RULES; rule++) {
        char prefix[GD_TAG_NAME_BYTES];
        int bytes = snprintf(prefix, sizeof(prefix), "shadow_%s/", gd_rule_name(rule));
        if (strncmp(name, prefix, (size_t)bytes) == 0)
            return true;
    }
    return strncmp(name, "parameters/l2_from_", strlen("parameters/l2_from_")) == 0 ||
           strncmp(name, "function/l2_from_", strlen("function/l2_from_")) == 0 ||
           strncmp(name, "function/per_parameter_from_", strlen("function/per_parameter_from_")) == 0;
}
