// What is told of the critical period, as a record.
#pragma once

#include "diagnostics/noise.h"
#include "event.h"

size_t gd_noise_records_max(void);

// The smoothed trace has fallen to half of its peak, which `state` has.
void gd_noise_append_critical_period(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                     const struct gd_noise_state *state, bool labels_from_model);
