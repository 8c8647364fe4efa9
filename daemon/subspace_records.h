// The eigenvalue histogram and the cosine matrix of a window of gradients, as records.
#pragma once

#include "diagnostics/subspace.h"
#include "event.h"
#include "heatmap.h"
#include "message.h"

// At least what the two functions below append for one step.
size_t gd_subspace_records_max(const struct gd_open_run *open_run);

// The eigenvalues' shares in 30 bins of equal width from 0 to 1.
void gd_subspace_append_eigenvalues(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                    const struct gd_spectrum *spectrum);

// The matrix of cosines as an image. `heatmap` is of a matrix of gram->size rows.
void gd_subspace_append_cosines(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                const struct gd_gram *gram, struct gd_heatmap *heatmap);
