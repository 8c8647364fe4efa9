// The records by which TensorBoard shows more of a run than its scalars: the layout of Custom Scalars, the page that
// says how to read the charts, hyperparameters, histograms. Pure, as event.h.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "event.h"
#include "kernels/exponents.h"
#include "message.h"

// Of all the following in one step.
uint64_t gd_dashboard_bytes_max(const struct gd_open_run *open_run);

// What `content` must have where it is asked for: it holds what a record is about before that is in the record.
size_t gd_dashboard_content_bytes_max(const struct gd_open_run *open_run);

// The layout and the page, which come at the file's beginning.
void gd_dashboard_append_start(struct gd_record_buffer *buffer, const struct gd_open_run *open_run, uint8_t *content);

// The run's hyperparameters, which are known with the first snapshot: `rates` are those of parameter group 0. A batch
// size of 0 is unknown.
void gd_dashboard_append_session_start(struct gd_record_buffer *buffer, const struct gd_open_run *open_run,
                                       const struct gd_adam_rates *rates, double batch_size, uint8_t *content);

// How it ended. Readers keep the first there is: it is written once, and only where the trainer says.
void gd_dashboard_append_session_end(struct gd_record_buffer *buffer, double wall_time, bool failed);

// Histograms of log2 |g| and of log2 of effective steps, by exponent; none where there is nothing to count.
void gd_dashboard_append_histograms(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                    const uint64_t gradient[static GD_EXPONENTS],
                                    const uint64_t step_sizes[static GD_EXPONENTS]);
