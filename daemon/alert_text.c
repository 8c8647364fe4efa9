#include "alert_text.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 3 * GRADIENTD_NAME_BYTES_MAX + 8 }; // a code span of the name, with the longest fences

#define CLEARS ", and once more after 16 steps without it."

static const struct {
    const char *name, *tag, *description;
} rules[GD_ALERT_RULES] = {
#define RULE(rule, name, description) [GD_ALERT_##rule] = {name, "alerts/" name, description}
    RULE(NON_FINITE, "non_finite",
         "Said when elements of the gradient are NaN or infinite, `gradient/non_finite > 0` (in steps that the "
         "optimiser skipped, as under loss scaling, from the sixteenth in a row on)" CLEARS),
    RULE(NORM_SPIKE, "norm_spike",
         "Said when `|g_t|` is above the mean of the previous 128 steps' norms (at least 64) and `norm_spike_sd` "
         "(6, by default) of their standard deviations" CLEARS),
    RULE(RMS, "rms",
         "Said when `adam/rms`, `sqrt(mean(g^2 / max(vhat, eps^2)))`, is above its threshold (2.3, by default: "
         "arXiv 2304.13013), where b2 is above 0.81: the second moment is out of date and a loss spike is near" CLEARS),
    RULE(COSINE, "cosine",
         "Said when the mean of `coherence/cosine_lag1` over the last 100 steps that have one is below its threshold "
         "(-0.3, by default): steps undo each other, as with too large a learning rate" CLEARS),
    RULE(OSCILLATION, "oscillation",
         "Said when `adam/oscillation`, `(C(n) - C(n/2)) / (A(n) - A(n/2))`, is above its threshold (0.1, by default) "
         "after 1,000 applied steps: the effective step sizes do not settle (arXiv 1808.02941)" CLEARS),
    RULE(ZERO_GROUP, "zero_group",
         "Said when a group's gradient has been all zero, `zeros = elements`, in as many steps in a row as the "
         "threshold says (100, by default; steps it is absent from do not count): it does not learn" CLEARS),
#undef RULE
};

const char *gd_alert_rule_name(enum gd_alert_rule rule) {
    assert(rule < GD_ALERT_RULES);
    return rules[rule].name;
}

struct gd_tensor_tag gd_alert_tag(enum gd_alert_rule rule) {
    assert(rule < GD_ALERT_RULES);
    return (struct gd_tensor_tag){rules[rule].tag, rules[rule].description};
}

static size_t longest_run(const char *text, char character) {
    size_t longest = 0, run = 0;
    for (; *text; text++) {
        run = *text == character ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

// A code span: nothing in it is markup, if its fences are longer than any run of backticks inside.
static void quote_name(const char *name, char ret_quoted[static NAME_BYTES]) {
    size_t name_bytes = strlen(name), fence = longest_run(name, '`') + 1;
    assert(name_bytes <= GRADIENTD_NAME_BYTES_MAX);
    char *at = ret_quoted;
    memset(at, '`', fence);
    at += fence;
    if (fence > 1)
        *at++ = ' '; // the name may begin or end with one
    memcpy(at, name, name_bytes);
    at += name_bytes;
    if (fence > 1)
        *at++ = ' ';
    memset(at, '`', fence);
    at[fence] = '\0';
}

static int format_onset(enum gd_alert_rule rule, const struct gd_alert *alert, const char *group, char *text) {
    long long step = alert->step;
    switch (rule) {
    case GD_ALERT_NON_FINITE:
        return snprintf(text, GD_ALERT_TEXT_BYTES,
                        "Step %lld: %.0f %s NaN or infinite, above %.0f, the first of them in %s.", step, alert->value,
                        alert->value > 1.0 ? "elements of the gradient are" : "element of the gradient is",
                        alert->limit, group);
    case GD_ALERT_NORM_SPIKE:
        return snprintf(text, GD_ALERT_TEXT_BYTES,
                        "Step %lld: the norm of the gradient is %.6g, above %.6g, which the norms of the steps before "
                        "make unlikely.",
                        step, alert->value, alert->limit);
    case GD_ALERT_RMS:
        return snprintf(text, GD_ALERT_TEXT_BYTES,
                        "Step %lld: `adam/rms` is %.6g, above %.6g: the second moment is out of date and a loss spike "
                        "is near.",
                        step, alert->value, alert->limit);
    case GD_ALERT_COSINE:
        return snprintf(text, GD_ALERT_TEXT_BYTES,
                        "Step %lld: the mean of `coherence/cosine_lag1` over %d steps is %.6g, below %.6g: steps undo "
                        "each other, the learning rate may be too large.",
                        step, GD_ALERT_COSINES, alert->value, alert->limit);
    case GD_ALERT_OSCILLATION:
        return snprintf(text, GD_ALERT_TEXT_BYTES,
                        "Step %lld: `adam/oscillation` is %.6g, above %.6g: the effective step sizes do not settle.",
                        step, alert->value, alert->limit);
    case GD_ALERT_ZERO_GROUP:
        return snprintf(text, GD_ALERT_TEXT_BYTES,
                        "Step %lld: the gradient of %s has been all zero for %.0f steps, the threshold is %.0f.", step,
                        group, alert->value, alert->limit);
    case GD_ALERT_RULES:
        break;
    }
    assert(false);
    return 0;
}

static const char *calm(enum gd_alert_rule rule) {
    static const char *const texts[GD_ALERT_RULES] = {
        [GD_ALERT_NON_FINITE] = "the gradient has been finite",
        [GD_ALERT_NORM_SPIKE] = "the norm of the gradient has been as those before",
        [GD_ALERT_RMS] = "`adam/rms` has been within its threshold",
        [GD_ALERT_COSINE] = "the mean of `coherence/cosine_lag1` has been within its threshold",
        [GD_ALERT_OSCILLATION] = "`adam/oscillation` has been within its threshold",
        [GD_ALERT_ZERO_GROUP] = "no group has been all zero",
    };
    return texts[rule];
}

size_t gd_alert_format(enum gd_alert_rule rule, const struct gd_alert *alert, const struct gd_open_run *open_run,
                       char ret_text[static GD_ALERT_TEXT_BYTES]) {
    char group[NAME_BYTES] = "";
    int bytes;
    if (alert->group < open_run->n_groups)
        quote_name(open_run->groups[alert->group].name, group);
    if (alert->onset)
        bytes = format_onset(rule, alert, group, ret_text);
    else
        bytes = snprintf(ret_text, GD_ALERT_TEXT_BYTES, "Step %lld: over; %s for %d steps (it began at step %lld%s%s).",
                         (long long)alert->step, calm(rule), GD_ALERT_QUIET_STEPS, (long long)alert->onset_step,
                         *group ? " with " : "", group);
    assert(bytes > 0 && bytes < GD_ALERT_TEXT_BYTES);
    return (size_t)bytes;
}

size_t gd_alert_records_max(void) {
    size_t bytes = 0;
    for (int rule = 0; rule < GD_ALERT_RULES; rule++)
        bytes += gd_event_tensor_bytes_max(gd_alert_tag((enum gd_alert_rule)rule), GD_ALERT_TEXT_BYTES);
    return bytes;
}
