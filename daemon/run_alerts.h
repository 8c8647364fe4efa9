// What the rules say of a run's snapshots.
#pragma once

#include "analysis.h"
#include "event.h"
#include "run.h"

// Judges a snapshot by the values that it shows. Moves run->state->alerts on.
void gd_run_alerts_judge(struct gd_run *run, const struct gd_submission *snapshot,
                         const struct gd_analysis_result *result, const struct gd_values *values);

// Appends a text for each rule that had an onset or a clearing at the snapshot that was judged.
void gd_run_alerts_append(const struct gd_run *run, const struct gd_submission *snapshot,
                          struct gd_record_buffer *buffer);
