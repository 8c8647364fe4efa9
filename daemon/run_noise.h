// The noise family of a run: what a step's batch and its neighbours' tell.
#pragma once

#include "run.h"

// Sets the family's values. Returns true where the critical period's end is to be told.
bool gd_run_noise_values(struct gd_run *run, const struct gd_submission *snapshot, const struct gd_step_sums *sums,
                         struct gd_values *values);

// Adds up, series by series, what the snapshot says of smaller batches group by group. Returns the batch size that is
// of, 0 where it says nothing.
double gd_run_series_norms(struct gd_run *run, const struct gd_submission *snapshot);

// The part of series `series`, with the sums `sums`, in the Fisher trace. `batch_size` is what gd_run_series_norms()
// gave. Returns false where there is none.
bool gd_run_series_fisher(const struct gd_run *run, uint32_t series, double batch_size,
                          const struct gd_submission *snapshot, const struct gd_step_sums *sums, double *ret_fisher);
