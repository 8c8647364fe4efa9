#include "run_alerts.h"

#include "alert_text.h"
#include "diagnostics/alerts.h"
#include "event_tensor.h"

// Whether the run's rule has a b2 with which adam/rms can pass its threshold: it is never above 1 / sqrt(1 - b2), and
// with 0.81 that is 2.3.
static bool judges_rms(struct gd_run *run) {
    const double beta2_min = 0.81;
    const struct gd_adam_rates *rates = gd_run_state_rates(run->state, run->open_run->n_groups);
    enum gd_rule rule = run->open_run->adam.rule;
    if (rule != GD_RULE_ADAM && rule != GD_RULE_ADAMW && rule != GD_RULE_RMSPROP && rule != GD_RULE_AMSGRAD)
        return false;
    for (uint32_t i = 0; i < run->open_run->n_parameter_groups; i++)
        if (rates[i].beta2 > beta2_min)
            return true;
    return false;
}

void gd_run_alerts_judge(struct gd_run *run, const struct gd_submission *snapshot,
                         const struct gd_analysis_result *result, const struct gd_values *values) {
    const struct gd_alert_step step = {
        .step = snapshot->step,
        .sums = &result->sums,
        .values = values,
        .applied = snapshot->applied,
        .judges_rms = judges_rms(run),
        .counted = run->state->adam.counted,
        .zero_group = result->zero_group,
        .zero_group_steps = result->zero_group_steps,
    };
    gd_alerts_judge(&run->state->alerts, &run->open_run->thresholds, &step);
}

void gd_run_alerts_append(const struct gd_run *run, const struct gd_submission *snapshot,
                          struct gd_record_buffer *buffer) {
    const struct gd_alert_state *state = &run->state->alerts;
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++) {
        char text[GD_ALERT_TEXT_BYTES];
        if (!gd_alerts_turned(state, rule, snapshot->step) || !gd_alerts_writes(state, rule))
            continue;
        size_t bytes = gd_alert_format(rule, &state->rules[rule].last, run->open_run, text);
        gd_event_append_text(buffer, snapshot->wall_time, snapshot->step, gd_alert_tag(rule), text, bytes);
    }
}
