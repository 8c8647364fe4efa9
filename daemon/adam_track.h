// One rule followed over a run's snapshots: the run's own, or a shadow, which is another rule on the same gradients.
// Between diagnostics/adam.h, which knows neither memory nor groups, and the analysis, which knows no rule.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "memory.h"
#include "message.h"
#include "run_state.h"

struct gd_adam_track {
    uint32_t rule; // 0: the run's own, from 1 on its shadows
    const struct gd_open_run *open_run;
    const struct gd_memory *memory;
    const struct gd_adam_config *config;
    struct gd_adam_group_step *group_steps; // owned

    // the snapshot under way
    struct gd_group_state *groups; // in the run's state
    struct gd_adam_step step;      // of an applied one
    bool has_second_moment;        // it moves second moments: it is applied and the rule keeps them
};

// `open_run` and `memory` must outlive it. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_adam_track_init(struct gd_adam_track *track, uint32_t rule,
                                                           const struct gd_open_run *open_run,
                                                           const struct gd_memory *memory);
// What a track allocates.
uint64_t gd_adam_track_bytes(const struct gd_open_run *open_run);

void gd_adam_track_deinit(struct gd_adam_track *track);

// The groups' state becomes that of the start vectors; `first` is the run's first snapshot.
void gd_adam_track_start(struct gd_adam_track *track, struct gd_run_state *state, const struct gd_submission *first);

// Second moments of a group's elements, of which there are `elems` from `from` on in a start vector, become roots from
// `to` on in the state's arrays. `optimizer_step` is the vectors'.
void gd_adam_track_start_chunk(const struct gd_adam_track *track, uint32_t group, uint64_t optimizer_step,
                               uint64_t from, uint64_t to, uint32_t elems);

// Begins a snapshot, whose rates the state has already; moves the states of the rule and of its groups on.
void gd_adam_track_begin(struct gd_adam_track *track, struct gd_run_state *state, const struct gd_submission *snapshot);

// Points a chunk of a present group at its second moments, `offset` elements into the state's arrays.
void gd_adam_track_point(const struct gd_adam_track *track, uint32_t group, uint64_t offset, struct gd_chunk *chunk);

// Completes a present group's sums and turns the halves of its second moments.
void gd_adam_track_end_group(struct gd_adam_track *track, uint32_t group, struct gd_step_sums *sums);
