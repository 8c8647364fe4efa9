#include "run_records.h"

#include "dashboard.h"
#include "diagnostics/adam.h"
#include "diagnostics/coherence.h"
#include "diagnostics/health.h"
#include "diagnostics/schedule.h"
#include "diagnostics/subspace.h"
#include "diagnostics/thinning.h"
#include "event.h"
#include "noise_records.h"
#include "run_alerts.h"
#include "run_noise.h"
#include "run_sides.h"
#include "run_subspace.h"
#include "subspace_records.h"

// What one snapshot shows.
struct step_values {
    struct gd_values own;
    struct gd_values shadows[GD_SHADOWS_MAX]; // of those that the run has
    bool ends_critical_period;
};

static void list_step_values(struct gd_run *run, const struct step_values *values) {
    struct gd_shadow_state *shadows = gd_run_state_shadows(run->state, run->open_run);
    gd_scalar_list_add_values(run->scalars, &values->own, run->state->described);
    for (uint32_t i = 0; i < run->open_run->n_shadows; i++)
        gd_scalar_list_add_shadow_values(run->scalars, i, &values->shadows[i], shadows[i].described);
}

// What thinning held back, for the end of the file.
static void set_unwritten(struct gd_run *run, const struct step_values *values) {
    run->state->unwritten = values->own;
    for (uint32_t i = 0; i < run->open_run->n_shadows; i++)
        gd_run_state_shadows(run->state, run->open_run)[i].unwritten = values->shadows[i];
}

static struct step_values unwritten_values(const struct gd_run *run) {
    struct step_values values = {.own = run->state->unwritten};
    for (uint32_t i = 0; i < run->open_run->n_shadows; i++)
        values.shadows[i] = gd_run_state_shadows(run->state, run->open_run)[i].unwritten;
    return values;
}

// The group tags' part of a step: what is computed is listed at once, or kept where thinning holds it back.
static void turn_series(struct gd_run *run, const struct gd_submission *snapshot,
                        const struct gd_analysis_result *result, bool writes) {
    struct gd_series_state *series = gd_run_state_series(run->state, run->open_run);
    bool measured = snapshot->applied && result->step.measured;
    double smaller_batch = gd_run_series_norms(run, snapshot);

    for (uint32_t i = 0; i < run->open_run->series.n_series; i++) {
        struct gd_series_state *state = &series[i];
        double fisher;
        gd_groups_values(&state->totals, &result->series[i], measured, run->open_run->max_lag, &state->unwritten);
        if (gd_run_series_fisher(run, i, smaller_batch, snapshot, &result->series[i], &fisher))
            gd_group_values_set(&state->unwritten, GD_GROUP_FISHER, fisher);
        if (!writes || state->unwritten.present == 0) // the window goes on
            continue;
        gd_scalar_list_add_group_values(run->scalars, i, &state->unwritten, &state->described);
        state->unwritten.present = 0;
        state->totals.max_abs = state->totals.non_finite = 0.0;
    }
}

static void list_user_scalars(struct gd_run *run, const struct gd_submission *submission) {
    struct gd_run_state *state = run->state;
    int64_t *steps = gd_run_state_user_tag_steps(state, run->open_run);
    for (uint32_t i = 0; i < submission->n_scalars; i++) {
        const struct gd_user_scalar *scalar = &submission->scalars[i];
        bool first = scalar->index >= state->user_tags; // indices are given in the order of first use
        gd_scalar_list_add(run->scalars, scalar->tag, scalar->value, first);
        steps[scalar->index] = submission->step;
        if (first) {
            gd_memory_store_user_tag(&run->memory, scalar->index, scalar->tag);
            state->user_tags = scalar->index + 1;
        }
    }
}

static void append_scalars(const struct gd_run *run, struct gd_record_buffer *buffer, double wall_time, int64_t step) {
    gd_event_append_scalars(buffer, wall_time, step, run->scalars->scalars, run->scalars->n_scalars);
}

static struct gd_record_buffer record_buffer(struct gd_run *run) {
    return (struct gd_record_buffer){.data = run->records, .capacity = run->layout.step_records_max};
}

size_t gd_run_records_start(struct gd_run *run) {
    struct gd_record_buffer buffer = record_buffer(run);
    run->state->wall_time = run->open_run->wall_time;
    gd_event_append_start(&buffer, run->open_run->wall_time, run->open_run->first_step);
    gd_dashboard_append_start(&buffer, run->open_run, run->content);
    return buffer.used;
}

// The share of the optimiser's steps that was seen, up to step `optimizer_step`.
static void set_observed_fraction(const struct gd_adam_state *adam, uint64_t optimizer_step, struct gd_values *values) {
    if (adam->applied > 0 && optimizer_step >= adam->optimizer_step)
        gd_values_set(values, GD_TAG_OBSERVED_FRACTION,
                      (double)adam->applied / (double)(optimizer_step - adam->first_optimizer_step + 1));
}

static void compute_values(struct gd_run *run, const struct gd_submission *snapshot,
                           const struct gd_analysis_result *result, struct step_values *ret_values) {
    struct gd_run_state *state = run->state;
    struct gd_values *own = &ret_values->own;

    *ret_values = (struct step_values){0};
    gd_run_keep_sums(run, snapshot, &result->sums);
    gd_coherence_values(&result->sums, run->open_run->max_lag, run->input.known_lags, own);
    if (snapshot->applied)
        gd_adam_end_step(&state->adam, &result->step, &result->sums, own);
    gd_health_values(&state->health, &result->sums, own);
    if (snapshot->has_model_version)
        gd_values_set(own, GD_TAG_STALENESS_OBSERVED, (double)(snapshot->step - snapshot->model_version));
    ret_values->ends_critical_period = gd_run_noise_values(run, snapshot, &result->sums, own);
    set_observed_fraction(&state->adam, state->adam.optimizer_step, own);
    for (uint32_t i = 0; snapshot->applied && i < run->open_run->n_shadows; i++)
        gd_adam_end_step(&gd_run_state_shadows(state, run->open_run)[i].adam, &result->shadow_steps[i],
                         &result->shadow_sums[i], &ret_values->shadows[i]);
}

// The last gradients' dot products.
struct window {
    struct gd_gram gram;
    struct gd_spectrum spectrum;
    bool has_spectrum;
};

static void look_at_window(const struct gd_run *run, const struct gd_submission *snapshot, struct window *ret_window,
                           struct gd_values *values) {
    bool is_whole = gd_run_gram(run, snapshot, &ret_window->gram);
    ret_window->has_spectrum = is_whole && gd_subspace_spectrum(&ret_window->gram, &ret_window->spectrum);
    if (ret_window->has_spectrum)
        gd_subspace_values(&ret_window->spectrum, values);
}

// Whatever thinning does: these have a schedule of their own.
static void append_tensors(struct gd_run *run, const struct gd_submission *snapshot, const struct window *window,
                           bool ends_critical_period, struct gd_record_buffer *buffer) {
    uint64_t n = run->state->snapshots + 1;
    if (window->has_spectrum && gd_schedule_shows(n))
        gd_subspace_append_eigenvalues(buffer, snapshot->wall_time, snapshot->step, &window->spectrum);
    if (run->input.known_lags != 0 && gd_schedule_shows_image(n))
        gd_subspace_append_cosines(buffer, snapshot->wall_time, snapshot->step, &window->gram, run->heatmap);
    if (ends_critical_period)
        gd_noise_append_critical_period(buffer, snapshot->wall_time, snapshot->step, &run->state->noise,
                                        run->open_run->labels_from_model);
}

// What the first snapshot makes known.
static void append_session_start(struct gd_run *run, const struct gd_submission *first,
                                 struct gd_record_buffer *buffer) {
    const struct gd_adam_rates *rates = gd_run_state_rates(run->state, run->open_run->n_groups);
    gd_dashboard_append_session_start(buffer, run->open_run, rates, first->batch_size, run->content);
}

static void append_histograms(const struct gd_submission *snapshot, const struct gd_log2_counts *log2,
                              struct gd_record_buffer *buffer) {
    uint64_t gradient[GD_EXPONENTS], step_sizes[GD_EXPONENTS];
    gd_log2_counts_load(log2, GD_LOG2_GRADIENT, gradient);
    gd_log2_counts_load(log2, GD_LOG2_STEP_SIZE, step_sizes);
    gd_dashboard_append_histograms(buffer, snapshot->wall_time, snapshot->step, gradient, step_sizes);
}

size_t gd_run_records_snapshot(struct gd_run *run, const struct gd_submission *snapshot,
                               const struct gd_analysis_result *result) {
    struct gd_run_state *state = run->state;
    struct gd_record_buffer buffer = record_buffer(run);
    struct step_values values;
    struct window window;

    gd_scalar_list_clear(run->scalars);
    compute_values(run, snapshot, result, &values);
    gd_run_alerts_judge(run, snapshot, result, &values.own);
    look_at_window(run, snapshot, &window, &values.own);
    bool writes = !run->open_run->thinning || gd_thinning_writes(state->step, snapshot->step);
    if (writes) {
        list_step_values(run, &values);
        set_unwritten(run, &(struct step_values){0});
        if (gd_values_has(&values.own, GD_TAG_NORM_MAX)) // not where every group was absent: the window goes on
            state->health = (struct gd_health_state){0};
    } else {
        set_unwritten(run, &values);
    }
    turn_series(run, snapshot, result, writes);
    gd_run_sides_end(run, snapshot);
    list_user_scalars(run, snapshot);
    if (state->snapshots == 0)
        append_session_start(run, snapshot, &buffer);
    append_scalars(run, &buffer, snapshot->wall_time, snapshot->step);
    if (result->log2)
        append_histograms(snapshot, result->log2, &buffer);
    append_tensors(run, snapshot, &window, values.ends_critical_period, &buffer);
    gd_run_alerts_append(run, snapshot, &buffer);

    state->step = snapshot->step;
    state->wall_time = snapshot->wall_time;
    state->skipped = snapshot->skipped;
    state->snapshots++;
    return buffer.used;
}

size_t gd_run_records_scalars(struct gd_run *run, const struct gd_submission *scalars) {
    struct gd_record_buffer buffer = record_buffer(run);

    gd_scalar_list_clear(run->scalars);
    list_user_scalars(run, scalars);
    append_scalars(run, &buffer, scalars->wall_time, scalars->step);
    return buffer.used;
}

// A value each for the steps that were skipped after the last snapshot: no other message tells of them.
static void append_skipped_end(struct gd_run *run, const struct gd_submission *close, struct gd_record_buffer *buffer) {
    struct gd_run_state *state = run->state;
    struct gd_values values = {0};

    gd_scalar_list_clear(run->scalars);
    state->skipped = close->skipped;
    if (close->has_optimizer_step)
        set_observed_fraction(&state->adam, close->optimizer_step, &values);
    gd_scalar_list_add_values(run->scalars, &values, state->described);
    append_scalars(run, buffer, state->wall_time, close->step);
}

static void list_unwritten(struct gd_run *run) {
    struct gd_series_state *series = gd_run_state_series(run->state, run->open_run);
    struct step_values held_back = unwritten_values(run);

    gd_scalar_list_clear(run->scalars);
    list_step_values(run, &held_back);
    set_unwritten(run, &(struct step_values){0});
    for (uint32_t i = 0; i < run->open_run->series.n_series; i++)
        gd_scalar_list_add_group_values(run->scalars, i, &series[i].unwritten, &series[i].described);
}

size_t gd_run_records_end(struct gd_run *run, const struct gd_submission *close) {
    struct gd_run_state *state = run->state;
    struct gd_record_buffer buffer = record_buffer(run);

    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!gd_open_run_has_side(run->open_run, side))
            continue;
        int64_t step = gd_run_sides_list_unwritten(run, side);
        append_scalars(run, &buffer, state->wall_time, step);
    }
    list_unwritten(run);
    append_scalars(run, &buffer, state->wall_time, state->step);
    bool skipped = close && close->step > state->step;
    if (skipped)
        append_skipped_end(run, close, &buffer);
    // Of a trainer that went without a word nothing is said: it may come back, and readers keep what was said first.
    if (close && state->snapshots > 0)
        gd_dashboard_append_session_end(&buffer, state->wall_time, close->failed);
    gd_event_append_stop(&buffer, state->wall_time, skipped ? close->step : state->step);
    state->ended = 1;
    return buffer.used;
}
