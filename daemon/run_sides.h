// A run's streams beside the gradient: their slots, and what is shown of them.
#pragma once

#include "run.h"
#include "side_analysis.h"

// Of a new run's state.
void gd_run_sides_init(struct gd_run *run);

// Checks that the snapshot's elements lie in free slots of streams that the run has. Returns 0 or -EBADMSG with
// *ret_error set.
__attribute__((warn_unused_result)) int gd_run_sides_check(const struct gd_run *run,
                                                           const struct gd_submission *snapshot,
                                                           struct gd_error *ret_error);

// The snapshot is received: its slots are taken.
void gd_run_sides_take(struct gd_run *run, const struct gd_submission *snapshot);

// A start of the stream, in its first slot, is received; and when its turn has come, it is what distances are measured
// from.
void gd_run_sides_take_start(struct gd_run *run, enum gd_side side);
void gd_run_sides_start(struct gd_run *run, enum gd_side side, uint64_t sequence);

// Takes the slots that a resumed run's state has in use, after checking it. Returns 0 or -EBADMSG with *ret_error set.
__attribute__((warn_unused_result)) int gd_run_sides_restore(struct gd_run *run, struct gd_error *ret_error);

// The snapshot's turn has come: sets run->side_input.
void gd_run_sides_begin(struct gd_run *run, const struct gd_submission *snapshot);

// Adds to run->scalars what the snapshot's streams show, and moves their state on.
void gd_run_sides_end(struct gd_run *run, const struct gd_submission *snapshot);

// Makes run->scalars what thinning has held back of a stream that the run has. Returns the step it belongs to.
int64_t gd_run_sides_list_unwritten(struct gd_run *run, enum gd_side side);
