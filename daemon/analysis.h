// One snapshot's elements become step sums: chunks on any number of threads, then folds in chunk and group order, so
// the result does not depend on how many threads there were.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "counters.h"
#include "kernels/kernels.h"
#include "log2_counts.h"
#include "memory.h"
#include "message.h"

struct gd_analysis; // one run's chunk table and scratch sums

// The snapshot to analyse. `state` is the run's own; its adam and group states move on as the analysis begins and ends.
struct gd_analysis_input {
    const struct gd_submission *snapshot;
    struct gd_run_state *state;
    uint32_t lag_slot[GD_LAG_MAX]; // index m - 1: the slot that holds lag m ...
    uint32_t known_lags;           // ... if bit m - 1 is set
};

struct gd_analysis_result {
    struct gd_step_sums sums; // over all present groups
    struct gd_adam_step step; // meaningful for an applied snapshot

    // The same for each shadow rule; of the gradient's own sums only elements, active and squared_norm.
    struct gd_step_sums shadow_sums[GD_SHADOWS_MAX];
    struct gd_adam_step shadow_steps[GD_SHADOWS_MAX];

    uint32_t zero_group;       // the first that has been all zero for as long as the threshold says, UINT32_MAX: none
    uint32_t zero_group_steps; // ... for how many steps

    // per series of groups that are shown, over its present groups; valid until the next end
    const struct gd_step_sums *series;

    const struct gd_log2_counts *log2; // as long; NULL: the schedule shows no histogram of this snapshot
};

// What gd_analysis_new() allocates.
uint64_t gd_analysis_bytes(const struct gd_open_run *open_run);

// `open_run` and `memory` must outlive it. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_analysis_new(const struct gd_open_run *open_run,
                                                        const struct gd_memory *memory,
                                                        const struct gd_kernels *kernels,
                                                        struct gd_analysis **ret_analysis);
void gd_analysis_free(struct gd_analysis *analysis);

// Parts tell how they get on there, after every GD_CHUNK_ELEMS elements or so. It outlives the analysis.
void gd_analysis_set_progress(struct gd_analysis *analysis, _Atomic uint64_t *progress);

// How many parts of at least `least_elems` elements the work divides into.
uint32_t gd_analysis_parts(const struct gd_analysis *analysis, uint32_t parts_max);

// Prepares a snapshot; `input` stays valid until the end.
void gd_analysis_begin(struct gd_analysis *analysis, const struct gd_analysis_input *input);

// Prepares the start vectors instead, of which input->snapshot is the last that came; there is nothing to end. They lie
// in half 1 of the optimiser state as the trainer's optimiser holds them, and become half 0 as the kernels keep it.
void gd_analysis_begin_start(struct gd_analysis *analysis, const struct gd_analysis_input *input);

// Does part `part` of `parts`; parts may run at the same time on different threads.
void gd_analysis_run(struct gd_analysis *analysis, uint32_t part, uint32_t parts);

// After all parts: folds the sums, stores the slot's group norms, turns the halves of the optimiser state.
void gd_analysis_end(struct gd_analysis *analysis, struct gd_analysis_result *ret_result);
