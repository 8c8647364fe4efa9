// The window of a run's last gradients: sums kept beside the slots, and the Gram matrix they make.
#pragma once

#include "diagnostics/subspace.h"
#include "run.h"

// Keeps the snapshot's sums beside its slot, for the steps to come.
void gd_run_keep_sums(const struct gd_run *run, const struct gd_submission *snapshot, const struct gd_step_sums *sums);

// The dot products between the snapshot, whose sums are kept already, and those at lags 1..M; NaN where a snapshot is
// missing. Returns whether none is.
bool gd_run_gram(const struct gd_run *run, const struct gd_submission *snapshot, struct gd_gram *ret_gram);
