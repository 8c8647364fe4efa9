// What a submission must be for a run to take it: in sequence, within what OpenRun said, and ahead of what came before.
#pragma once

#include "run.h"

// Checks a submission against the run. Gives its scalars their index in the run's user tags, and an applied snapshot
// its optimizer_step where the trainer left it out. Returns 0, or a negative errno with *ret_error set.
__attribute__((warn_unused_result)) int gd_run_accept(struct gd_run *run, struct gd_submission *submission,
                                                      struct gd_error *ret_error);

// Whether `starts` (bit per array of the optimiser state) are all that the run's OpenRun declares.
bool gd_run_starts_are_complete(const struct gd_run *run, uint64_t starts);
