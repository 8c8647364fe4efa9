#include "diagnostics/alerts.h"

#include <math.h>

enum verdict {
    UNKNOWN, // the step says nothing
    QUIET,
    FAULT,
};

static const double COSINE_UNIT = 1.0 / (1 << 30);

// A gradient that is clipped has one norm, but for rounding: that is no spread to measure a spike by.
static const double NORM_SPREAD_MIN = 1e-6;

const struct gd_alert_thresholds gd_alert_thresholds_default = {
    .norm_spike_sd = 6.0,
    .rms = 2.3,
    .cosine_mean = -0.3,
    .oscillation = 0.1,
    .zero_group_steps = 100,
    .silence_intervals = 10.0,
};

static void turn(struct gd_alert_rule_state *rule, enum verdict verdict, const struct gd_alert *alert) {
    bool raised = rule->count > 0 && rule->last.onset;
    if (verdict == FAULT)
        rule->quiet = 0;
    if (verdict == FAULT && !raised) {
        rule->last = *alert;
        rule->last.onset_step = alert->step;
        rule->last.onset = 1;
        rule->count++;
    }
    if (verdict == QUIET && raised && ++rule->quiet >= GD_ALERT_QUIET_STEPS) {
        rule->last.step = alert->step;
        rule->last.value = alert->value;
        rule->last.onset = 0;
        rule->count++;
    }
}

// A rule that judges one number by its threshold. `sign` 1: a fault lies above, -1: below.
static void judge_value(struct gd_alert_rule_state *rule, int64_t step, double value, double limit, double sign) {
    const struct gd_alert alert = {.step = step, .value = value, .limit = limit, .group = UINT32_MAX};
    turn(rule, sign * value > sign * limit ? FAULT : QUIET, &alert);
}

static void judge_non_finite(struct gd_alert_state *state, const struct gd_alert_step *step) {
    const struct gd_step_sums *sums = step->sums;
    const struct gd_alert alert = {.step = step->step,
                                   .value = (double)sums->non_finite,
                                   .group = sums->first_non_finite_group};
    bool skipped = sums->non_finite > 0 && !step->applied;
    if (!skipped)
        state->unapplied = 0;
    else if (state->unapplied < GD_ALERT_UNAPPLIED_STEPS)
        state->unapplied++;
    bool expected = skipped && state->unapplied < GD_ALERT_UNAPPLIED_STEPS;
    if (!expected)
        turn(&state->rules[GD_ALERT_NON_FINITE], sums->non_finite > 0 ? FAULT : QUIET, &alert);
}

// Whether so many of the window's norms are as large that this one cannot be `sd` standard deviations above their mean:
// by Cantelli's inequality that is a share of at most 1 / (1 + sd^2), of 128 and 6 sd three. Most norms are told apart
// by a few of the last ones.
static bool is_common(const struct gd_alert_state *state, float norm, double sd) {
    double room = (double)state->norms_seen / (1.0 + sd * sd);
    uint32_t at = state->norms_next, larger = 0;
    for (uint32_t i = 0; i < state->norms_seen; i++) {
        at = at > 0 ? at - 1 : GD_ALERT_NORMS - 1;
        larger += state->norms[at] >= norm;
        if ((double)larger > room)
            return true;
    }
    return false;
}

// The mean of the window's norms and `sd` standard deviations: two passes, as a running sum of squares loses both where
// a spike of another size has passed.
static double spike_limit(const struct gd_alert_state *state, double sd) {
    double n = (double)state->norms_seen, sum = 0.0, squares = 0.0;
    for (uint32_t i = 0; i < state->norms_seen; i++)
        sum += (double)state->norms[i];
    double mean = sum / n;
    for (uint32_t i = 0; i < state->norms_seen; i++) {
        double distance = (double)state->norms[i] - mean;
        squares += distance * distance;
    }
    double spread = sqrt(squares / n), least = NORM_SPREAD_MIN * mean;
    return mean + sd * (spread > least ? spread : least);
}

static void keep_norm(struct gd_alert_state *state, float norm) {
    state->norms[state->norms_next] = norm;
    state->norms_next = (state->norms_next + 1) % GD_ALERT_NORMS;
    if (state->norms_seen < GD_ALERT_NORMS)
        state->norms_seen++;
}

// A step with elements that are not finite has the norm of the others, which is none to compare. A spike joins the
// window, so that a run that stays at a new level is quiet again after four steps of it; but not one beyond all
// numbers.
static void judge_norm(struct gd_alert_state *state, double sd, const struct gd_alert_step *step) {
    if (step->sums->non_finite > 0 || !gd_values_has(step->values, GD_TAG_NORM))
        return;
    float norm = (float)step->values->value[GD_TAG_NORM];
    struct gd_alert_rule_state *rule = &state->rules[GD_ALERT_NORM_SPIKE];
    if (state->norms_seen >= GD_ALERT_NORMS_MIN && !isinf(sd)) {
        double limit = is_common(state, norm, sd) ? (double)INFINITY : spike_limit(state, sd);
        judge_value(rule, step->step, (double)norm, limit, 1.0);
    }
    if (isfinite(norm))
        keep_norm(state, norm);
}

static void judge_cosine(struct gd_alert_state *state, double limit, const struct gd_alert_step *step) {
    if (!gd_values_has(step->values, GD_TAG_COSINE_LAG))
        return;
    double cosine = step->values->value[GD_TAG_COSINE_LAG];
    int32_t units = (int32_t)((cosine < -1.0 ? -1.0 : cosine > 1.0 ? 1.0 : cosine) / COSINE_UNIT);
    state->cosine_sum += (int64_t)units - state->cosines[state->cosines_next];
    state->cosines[state->cosines_next] = units;
    state->cosines_next = (state->cosines_next + 1) % GD_ALERT_COSINES;
    if (state->cosines_seen < GD_ALERT_COSINES)
        state->cosines_seen++;
    if (state->cosines_seen == GD_ALERT_COSINES)
        judge_value(&state->rules[GD_ALERT_COSINE], step->step,
                    (double)state->cosine_sum * COSINE_UNIT / GD_ALERT_COSINES, limit, -1.0);
}

static void judge_zeros(struct gd_alert_state *state, uint32_t limit, const struct gd_alert_step *step) {
    bool zero = step->zero_group != UINT32_MAX;
    const struct gd_alert alert = {.step = step->step,
                                   .value = (double)step->zero_group_steps,
                                   .limit = (double)limit,
                                   .group = step->zero_group};
    turn(&state->rules[GD_ALERT_ZERO_GROUP], zero ? FAULT : QUIET, &alert);
}

void gd_alerts_judge(struct gd_alert_state *state, const struct gd_alert_thresholds *thresholds,
                     const struct gd_alert_step *step) {
    const struct gd_values *values = step->values;
    if (step->sums->elements == 0) // every group was absent
        return;
    judge_non_finite(state, step);
    judge_norm(state, thresholds->norm_spike_sd, step);
    if (step->judges_rms && gd_values_has(values, GD_TAG_RMS))
        judge_value(&state->rules[GD_ALERT_RMS], step->step, values->value[GD_TAG_RMS], thresholds->rms, 1.0);
    judge_cosine(state, thresholds->cosine_mean, step);
    if (step->counted >= GD_ALERT_SETTLING && gd_values_has(values, GD_TAG_OSCILLATION))
        judge_value(&state->rules[GD_ALERT_OSCILLATION], step->step, values->value[GD_TAG_OSCILLATION],
                    thresholds->oscillation, 1.0);
    judge_zeros(state, thresholds->zero_group_steps, step);
}

void gd_alerts_count_zeros(const struct gd_step_sums *group, uint32_t *zero_steps) {
    if (group->zeros < group->elements)
        *zero_steps = 0;
    else if (*zero_steps < UINT32_MAX - 1)
        ++*zero_steps;
}

bool gd_alerts_are_valid(const struct gd_alert_state *state, uint32_t n_groups) {
    int64_t cosine_sum = 0;
    for (int rule = 0; rule < GD_ALERT_RULES; rule++) {
        uint32_t group = state->rules[rule].last.group;
        if (state->rules[rule].count > 0 && group >= n_groups && group != UINT32_MAX)
            return false;
    }
    for (uint32_t i = 0; i < GD_ALERT_COSINES; i++)
        cosine_sum += state->cosines[i];
    return state->norms_seen <= GD_ALERT_NORMS && state->norms_next < GD_ALERT_NORMS &&
           state->cosines_seen <= GD_ALERT_COSINES && state->cosines_next < GD_ALERT_COSINES &&
           state->cosine_sum == cosine_sum;
}
