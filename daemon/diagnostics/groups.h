// What is shown of a group, or of groups that are shown under one name: norm, coherence, Adam-type ratios, health. The
// formulas are those of the run's own values.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "group_tags.h"
#include "step_sums.h"

// Kept of one series from step to step.
struct gd_series_totals {
    double A, B, C;             // over the applied steps whose Adam terms were summed
    double max_abs, non_finite; // the largest since values were last written
};

// Adds a step's sums over the series' present groups and gives the series' values; none where all were absent.
// `measured`: the sums have Adam terms. Pure.
void gd_groups_values(struct gd_series_totals *totals, const struct gd_step_sums *sums, bool measured, uint32_t max_lag,
                      struct gd_group_values *ret_values);
