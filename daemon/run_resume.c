#include "run_resume.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "run_accept.h"
#include "run_sides.h"
#include "text.h"

static int refuse(struct gd_error *ret_error, const char *what) {
    return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory", "memory is damaged: %s", what);
}

static int check_rates(const struct gd_run *run, struct gd_error *ret_error) {
    const struct gd_adam_rates *rates = gd_run_state_rates(run->state, run->open_run->n_groups);
    for (uint32_t i = 0; i < run->open_run->n_parameter_groups; i++)
        if (!isfinite(rates[i].learning_rate) || !gd_adam_beta2_is_valid(rates[i].beta2) ||
            !gd_adam_eps_is_valid(rates[i].eps))
            return refuse(ret_error, "the rates in its state are outside their limits");
    return 0;
}

static int restore_slots(struct gd_run *run, struct gd_error *ret_error) {
    const struct gd_run_state *state = run->state;
    uint32_t in_use = 0;

    for (uint32_t i = 0; i < run->layout.slots; i++) {
        const struct gd_slot_state *slot = &state->slots[i];
        if (!slot->in_use)
            continue;
        if (slot->in_use != 1) // they are counted by it
            return refuse(ret_error, "a slot in its state is neither free nor in use");
        if (slot->step < 0 || slot->step > state->step || slot->sequence > state->sequence)
            return refuse(ret_error, "a slot in its state is ahead of the run");
        run->slot_use[i] = GD_SLOT_TAKEN;
        in_use++;
    }
    return in_use < run->layout.slots ? 0 : refuse(ret_error, "no slot in its state is free");
}

static int restore_user_tags(struct gd_run *run, struct gd_error *ret_error) {
    const struct gd_run_state *state = run->state;
    const int64_t *steps = gd_run_state_user_tag_steps(run->state, run->open_run);
    for (uint32_t i = 0; i < state->user_tags; i++) {
        char tag[GRADIENTD_NAME_BYTES_MAX + 1];
        uint32_t index;
        gd_memory_load_user_tag(&run->memory, i, tag);
        if (!gd_text_is_name(tag))
            return refuse(ret_error, "a tag in it is no name");
        int result = gd_user_tags_use(run->user_tags, tag, steps[i], &index, ret_error);
        if (result == -ENOMEM)
            return result;
        if (result < 0 || index != i)
            return refuse(ret_error, "the tags in it are not those of its state");
    }
    return 0;
}

// Each shadow has seen the steps that the run's own rule has: none before all start vectors are there, which then say
// how far that rule is.
static int check_shadows(const struct gd_run *run, struct gd_error *ret_error) {
    const struct gd_shadow_state *shadows = gd_run_state_shadows(run->state, run->open_run);
    bool begun = gd_run_starts_are_complete(run, run->state->starts);
    uint64_t seen = begun ? run->state->adam.optimizer_step : 0;
    for (uint32_t i = 0; i < run->open_run->n_shadows; i++)
        if (shadows[i].adam.optimizer_step > seen)
            return refuse(ret_error, "a shadow rule in its state is ahead of the run");
    return 0;
}

static int restore(struct gd_run *run, const struct gd_memory_restored *restored, struct gd_error *ret_error) {
    const struct gd_run_state *state = run->state;

    if (state->step < -1 || !isfinite(state->wall_time))
        return refuse(ret_error, "the step or the time in its state is none");
    if (!gd_alerts_are_valid(&state->alerts, run->open_run->n_groups))
        return refuse(ret_error, "the rules in its state are none");
    if (state->starts & ~(uint64_t)run->open_run->starts)
        return refuse(ret_error, "its state has start vectors that the run has not");
    int result = check_rates(run, ret_error);
    if (result == 0)
        result = check_shadows(run, ret_error);
    if (result == 0)
        result = restore_slots(run, ret_error);
    if (result == 0)
        result = gd_run_sides_restore(run, ret_error);
    if (result == 0)
        result = restore_user_tags(run, ret_error);
    gd_memory_load_event_name(&run->memory, run->event_name);
    if (result == 0 && *run->event_name && !gd_event_path_is_name(run->event_name))
        return refuse(ret_error, "the name of the event file in it is none");
    run->appended_bytes = restored->appended_bytes;
    run->received_sequence = state->sequence;
    run->received_step = state->step;
    run->received_starts = state->starts;
    run->received_optimizer_step = state->adam.optimizer_step;
    return result;
}

int gd_run_resume(struct gd_run *run, struct gd_memory_restored *ret_restored, struct gd_error *ret_error) {
    struct gd_run_state *past = malloc(run->layout.state_bytes);
    if (!past)
        return -ENOMEM;
    int result = gd_memory_restore(&run->memory, run->open_run->digest, past, ret_restored, ret_error);
    if (result != GD_MEMORY_RESUMES) {
        free(past);
        return result;
    }
    free(run->state);
    run->state = past;
    result = restore(run, ret_restored, ret_error);
    return result < 0 ? result : GD_MEMORY_RESUMES;
}
