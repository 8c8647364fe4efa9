// Gradient coherence: Dai et al., "Toward understanding the impact of staleness in distributed machine learning",
// arXiv 1810.03264, Definition 1.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "step_sums.h"
#include "tags.h"

// The cosine between g_t and g_{t-m}, m = `index` + 1. Returns false where there is none: no such snapshot, a norm of
// 0, or sums that overflowed. Pure.
bool gd_coherence_cosine(const struct gd_step_sums *sums, uint32_t index, double *ret_cosine);

// Sets the family's tags for lags 1..max_lag. Bit m - 1 of `known_lags`: the snapshot at lag m exists. Pure.
void gd_coherence_values(const struct gd_step_sums *sums, uint32_t max_lag, uint32_t known_lags,
                         struct gd_values *values);
