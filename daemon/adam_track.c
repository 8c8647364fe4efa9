#include "adam_track.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "start_vector.h"

// A state array of more is not in the cache when the next step comes, after eight slots of the same size; one of fewer
// may be.
static const uint64_t PAST_CACHES_BYTES = 1 << 20;

int gd_adam_track_init(struct gd_adam_track *track, uint32_t rule, const struct gd_open_run *open_run,
                       const struct gd_memory *memory) {
    *track = (struct gd_adam_track){
        .rule = rule,
        .open_run = open_run,
        .memory = memory,
        .config = gd_open_run_rule(open_run, rule),
        .group_steps = calloc(open_run->n_groups, sizeof(*track->group_steps)),
    };
    return track->group_steps ? 0 : -ENOMEM;
}

uint64_t gd_adam_track_bytes(const struct gd_open_run *open_run) {
    const struct gd_adam_track *track = NULL;
    return open_run->n_groups * sizeof(*track->group_steps);
}

void gd_adam_track_deinit(struct gd_adam_track *track) {
    free(track->group_steps);
}

void gd_adam_track_start(struct gd_adam_track *track, struct gd_run_state *state, const struct gd_submission *first) {
    const struct gd_open_run *open_run = track->open_run;
    struct gd_group_state *groups = gd_run_state_rule_groups(state, open_run, track->rule);

    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        uint32_t parameter_group = open_run->groups[i].parameter_group;
        struct gd_adam_rates rates = open_run->parameter_groups[parameter_group];
        double stated = open_run->start_learning_rates[parameter_group];
        rates.learning_rate = isnan(stated) ? first->rates[parameter_group].learning_rate : stated;
        gd_adam_start_group(track->config, &groups[i].adam, state->adam.optimizer_step, &rates);
    }
}

// A group that has taken no step keeps the state of a run's start.
void gd_adam_track_start_chunk(const struct gd_adam_track *track, uint32_t group, uint64_t optimizer_step,
                               uint64_t from, uint64_t to, uint32_t elems) {
    const struct gd_group *entry = &track->open_run->groups[group];
    uint64_t t = optimizer_step - entry->step_lag;
    float *root = gd_memory_second_moment(track->memory, track->rule, 0, 0) + to;
    if (t == 0)
        return;

    gd_start_roots(gd_memory_second_moment(track->memory, track->rule, 1, 0) + from,
                   (float)track->config->initial_accumulator, elems, root);
    if (gd_adam_state_arrays(track->config) > 1) {
        double beta2 = track->open_run->parameter_groups[entry->parameter_group].beta2;
        gd_start_maxima(gd_memory_second_moment(track->memory, track->rule, 1, 1) + from, root,
                        (float)gd_adam_maximum_scale(track->config, beta2, t), elems,
                        gd_memory_second_moment(track->memory, track->rule, 0, 1) + to);
    }
}

// Every group at its own t = 1: nothing came before that the daemon has not seen.
static bool starts_exact(const struct gd_open_run *open_run, uint64_t optimizer_step) {
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        if (optimizer_step != (uint64_t)open_run->groups[i].step_lag + 1)
            return false;
    return true;
}

static double largest_beta2(const struct gd_adam_rates *rates, uint32_t n_rates) {
    double largest = 0.0;
    for (uint32_t i = 0; i < n_rates; i++)
        if (rates[i].beta2 > largest)
            largest = rates[i].beta2;
    return largest;
}

void gd_adam_track_begin(struct gd_adam_track *track, struct gd_run_state *state,
                         const struct gd_submission *snapshot) {
    const struct gd_open_run *open_run = track->open_run;
    struct gd_adam_state *adam = gd_run_state_rule_adam(state, open_run, track->rule);
    const struct gd_adam_rates *rates = gd_run_state_rates(state, open_run->n_groups);

    track->groups = gd_run_state_rule_groups(state, open_run, track->rule);
    track->has_second_moment = snapshot->applied && gd_adam_has_second_moment(track->config);
    if (!snapshot->applied) {
        memset(track->group_steps, 0, open_run->n_groups * sizeof(*track->group_steps));
        return;
    }
    bool exact = adam->applied == 0 && starts_exact(open_run, snapshot->optimizer_step);
    track->step = gd_adam_begin_step(track->config, adam, snapshot->optimizer_step, exact,
                                     largest_beta2(rates, open_run->n_parameter_groups));
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        if (gd_submission_has_group(snapshot, i))
            track->group_steps[i] = gd_adam_step_group(track->config, &track->groups[i].adam, &track->step,
                                                       &rates[open_run->groups[i].parameter_group]);
        else
            gd_adam_skip_group(track->config, &track->groups[i].adam, &track->step);
    }
}

void gd_adam_track_point(const struct gd_adam_track *track, uint32_t group, uint64_t offset, struct gd_chunk *chunk) {
    uint64_t half = track->groups[group].half % 2;

    chunk->step = &track->group_steps[group].kernel;
    chunk->past_caches = track->memory->layout.second_moment_bytes > PAST_CACHES_BYTES;
    chunk->root = gd_memory_second_moment(track->memory, track->rule, half, 0) + offset;
    chunk->root_next = gd_memory_second_moment(track->memory, track->rule, 1 - half, 0) + offset;
    if (gd_adam_state_arrays(track->config) > 1) {
        chunk->maximum = gd_memory_second_moment(track->memory, track->rule, half, 1) + offset;
        chunk->maximum_next = gd_memory_second_moment(track->memory, track->rule, 1 - half, 1) + offset;
    }
}

void gd_adam_track_end_group(struct gd_adam_track *track, uint32_t group, struct gd_step_sums *sums) {
    gd_adam_complete_sums(track->config, &track->group_steps[group], sums);
    track->groups[group].half ^= (uint32_t)track->has_second_moment;
}
