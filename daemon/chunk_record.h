// A chunk's sums as they are kept until the fold: what a kernel fills in of gd_step_sums, in 104 bytes with 5 lags, so
// that those of thousands of small groups stay in the cache.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "step_sums.h"

struct gd_chunk_record {
    double squared_norm;
    double A, B, C, D;
    double relative_square;
    float max_abs;
    float step_size_min;
    uint32_t non_finite;
    uint32_t active;
    double dot[]; // max_lag of them
};

static inline size_t gd_chunk_record_bytes(uint32_t max_lag) {
    return sizeof(struct gd_chunk_record) + max_lag * sizeof(double);
}

// Keeps what a kernel gave for a chunk of less than 2^32 elements.
void gd_chunk_record_keep(struct gd_chunk_record *record, const struct gd_step_sums *sums, uint32_t max_lag);

// Adds a chunk of `elems` elements to its group's sums, as gd_step_sums_merge() would.
void gd_chunk_record_add(const struct gd_chunk_record *record, uint32_t elems, uint32_t max_lag,
                         struct gd_step_sums *sums);
