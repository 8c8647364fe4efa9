#include "run_records.h"

#include "diagnostics/adam.h"
#include "diagnostics/coherence.h"
#include "diagnostics/health.h"
#include "diagnostics/thinning.h"
#include "event.h"

enum {
    OWN_MAX = GD_TAG_COUNT + GD_SHADOWS_MAX * GD_ADAM_TAGS,
    SCALARS_MAX = OWN_MAX + GRADIENTD_USER_TAGS_MAX,
};

// What one snapshot shows.
struct step_values {
    struct gd_values own;
    struct gd_values shadows[GD_SHADOWS_MAX]; // of those that the run has
};

// One Event's scalars.
struct scalar_list {
    struct gd_scalar scalars[SCALARS_MAX];
    struct gd_tag_text texts[OWN_MAX]; // the names that own tags, which come first, point to
    size_t n_scalars;                  // entries above it are not initialised
};

// `described` has a bit for each tag whose metadata is in the file.
static void list_value(struct scalar_list *list, const struct gd_tag_text *text, double value, enum gd_tag tag,
                       uint64_t *described) {
    uint64_t bit = UINT64_C(1) << (tag % 64);
    struct gd_tag_text *kept = &list->texts[list->n_scalars];

    *kept = *text;
    list->scalars[list->n_scalars++] = (struct gd_scalar){
        .tag = kept->name,
        .value = (float)value,
        .description = described[tag / 64] & bit ? NULL : text->description,
    };
    described[tag / 64] |= bit;
}

static void list_values(struct scalar_list *list, struct gd_run_state *state, const struct gd_values *values) {
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text;
        if (!gd_values_has(values, tag))
            continue;
        gd_tag_describe(tag, &text);
        list_value(list, &text, values->value[tag], tag, state->described);
    }
}

static void list_shadow_values(struct scalar_list *list, enum gd_rule rule, struct gd_shadow_state *shadow,
                               const struct gd_values *values) {
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text;
        if (!gd_values_has(values, tag) || !gd_tag_is_adam(tag))
            continue;
        gd_tag_describe_shadow(rule, tag, &text);
        list_value(list, &text, values->value[tag], tag, shadow->described);
    }
}

static void list_step_values(struct scalar_list *list, struct gd_run *run, const struct step_values *values) {
    list_values(list, run->state, &values->own);
    for (uint32_t i = 0; i < run->open_run->n_shadows; i++)
        list_shadow_values(list, run->open_run->shadows[i].rule, &gd_run_state_shadows(run->state, run->open_run)[i],
                           &values->shadows[i]);
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

static void list_user_scalars(struct scalar_list *list, struct gd_run *run, const struct gd_submission *submission) {
    struct gd_run_state *state = run->state;
    for (uint32_t i = 0; i < submission->n_scalars; i++) {
        const struct gd_user_scalar *scalar = &submission->scalars[i];
        bool first = scalar->index >= state->user_tags; // indices are given in the order of first use
        list->scalars[list->n_scalars++] = (struct gd_scalar){
            .tag = scalar->tag,
            .value = scalar->value,
            .description = first ? "" : NULL,
        };
        state->user_tag_step[scalar->index] = submission->step;
        if (first) {
            gd_memory_store_user_tag(&run->memory, scalar->index, scalar->tag);
            state->user_tags = scalar->index + 1;
        }
    }
}

static struct gd_record_buffer record_buffer(struct gd_run *run) {
    return (struct gd_record_buffer){.data = run->records, .capacity = run->layout.step_records_max};
}

size_t gd_run_records_start(struct gd_run *run) {
    struct gd_record_buffer buffer = record_buffer(run);
    run->state->wall_time = run->open_run->wall_time;
    gd_event_append_start(&buffer, run->open_run->wall_time, run->open_run->first_step);
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
    gd_coherence_values(&result->sums, run->open_run->max_lag, run->input.known_lags, own);
    if (snapshot->applied)
        gd_adam_end_step(&state->adam, &result->step, &result->sums, own);
    gd_health_values(&state->health, &result->sums, own);
    set_observed_fraction(&state->adam, state->adam.optimizer_step, own);
    for (uint32_t i = 0; snapshot->applied && i < run->open_run->n_shadows; i++)
        gd_adam_end_step(&gd_run_state_shadows(state, run->open_run)[i].adam, &result->shadow_steps[i],
                         &result->shadow_sums[i], &ret_values->shadows[i]);
}

size_t gd_run_records_snapshot(struct gd_run *run, const struct gd_submission *snapshot,
                               const struct gd_analysis_result *result) {
    struct gd_run_state *state = run->state;
    struct gd_record_buffer buffer = record_buffer(run);
    struct scalar_list list;
    list.n_scalars = 0;
    struct step_values values;

    compute_values(run, snapshot, result, &values);
    if (!run->open_run->thinning || gd_thinning_writes(state->step, snapshot->step)) {
        list_step_values(&list, run, &values);
        set_unwritten(run, &(struct step_values){0});
        if (gd_values_has(&values.own, GD_TAG_NORM_MAX)) // not where every group was absent: the window goes on
            state->health = (struct gd_health_state){0};
    } else {
        set_unwritten(run, &values);
    }
    list_user_scalars(&list, run, snapshot);
    gd_event_append_scalars(&buffer, snapshot->wall_time, snapshot->step, list.scalars, list.n_scalars);

    state->step = snapshot->step;
    state->wall_time = snapshot->wall_time;
    state->skipped = snapshot->skipped;
    state->snapshots++;
    return buffer.used;
}

size_t gd_run_records_scalars(struct gd_run *run, const struct gd_submission *scalars) {
    struct gd_record_buffer buffer = record_buffer(run);
    struct scalar_list list;
    list.n_scalars = 0;

    list_user_scalars(&list, run, scalars);
    gd_event_append_scalars(&buffer, scalars->wall_time, scalars->step, list.scalars, list.n_scalars);
    return buffer.used;
}

// A value each for the steps that were skipped after the last snapshot: no other message tells of them.
static void append_skipped_end(struct gd_run *run, const struct gd_submission *close, struct gd_record_buffer *buffer) {
    struct gd_run_state *state = run->state;
    struct gd_values values = {0};
    struct scalar_list list;

    list.n_scalars = 0;
    state->skipped = close->skipped;
    if (close->has_optimizer_step)
        set_observed_fraction(&state->adam, close->optimizer_step, &values);
    list_values(&list, state, &values);
    gd_event_append_scalars(buffer, state->wall_time, close->step, list.scalars, list.n_scalars);
}

size_t gd_run_records_end(struct gd_run *run, const struct gd_submission *close) {
    struct gd_run_state *state = run->state;
    struct gd_record_buffer buffer = record_buffer(run);
    struct step_values held_back = unwritten_values(run);
    struct scalar_list list;

    list.n_scalars = 0;
    list_step_values(&list, run, &held_back);
    gd_event_append_scalars(&buffer, state->wall_time, state->step, list.scalars, list.n_scalars);
    bool skipped = close && close->step > state->step;
    if (skipped)
        append_skipped_end(run, close, &buffer);
    gd_event_append_stop(&buffer, state->wall_time, skipped ? close->step : state->step);
    set_unwritten(run, &(struct step_values){0});
    state->ended = 1;
    return buffer.used;
}
