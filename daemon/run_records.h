// The records of a run's commits: submissions and step sums in, bytes in run->records out. Each returns their number.
#pragma once

#include <stddef.h>

#include "analysis.h"
#include "run.h"

// The file's first records, with what TensorBoard is told of the run as a whole.
size_t gd_run_records_start(struct gd_run *run);

// The diagnostics of a snapshot and the trainer's own scalars; with the first one the run's hyperparameters. Moves
// run->state on.
size_t gd_run_records_snapshot(struct gd_run *run, const struct gd_submission *snapshot,
                               const struct gd_analysis_result *result);

// Scalars between steps.
size_t gd_run_records_scalars(struct gd_run *run, const struct gd_submission *scalars);

// The last snapshot's values if thinning held them back, what share was seen if steps were skipped after it, the
// outcome and the end of the file. `close` is NULL when the trainer went without CloseRun.
size_t gd_run_records_end(struct gd_run *run, const struct gd_submission *close);
