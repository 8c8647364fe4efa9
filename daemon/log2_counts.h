// A snapshot's elements and effective steps counted by exponent, chunk by chunk, on any number of threads.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/exponents.h"
#include "kernels/kernels.h"

enum gd_log2_kind { GD_LOG2_GRADIENT, GD_LOG2_STEP_SIZE, GD_LOG2_KINDS };

// What one thread counts.
struct gd_log2_tally {
    uint64_t count[GD_LOG2_KINDS][GD_EXPONENTS];
};

// Adds a chunk of a group of `numel` elements, after analyse(): its elements, and its effective steps where it is
// measured. A group of GD_LOG2_SAMPLED_NUMEL and more is sampled: in each GD_LOG2_EVERY blocks of GD_FLUSH_ELEMS the
// first one stands for all; what a chunk has beyond a whole number of these is counted.
enum { GD_LOG2_EVERY = 8, GD_LOG2_SAMPLED_NUMEL = 1 << 20 };
void gd_log2_tally_add_chunk(struct gd_log2_tally *tally, const struct gd_chunk *chunk, uint64_t numel);

// What all threads have counted. Integers add up to the same whatever the order, so threads need none.
struct gd_log2_counts {
    _Atomic uint64_t count[GD_LOG2_KINDS][GD_EXPONENTS];
};

void gd_log2_counts_clear(struct gd_log2_counts *counts);

// Thread-safe.
void gd_log2_counts_merge(struct gd_log2_counts *counts, const struct gd_log2_tally *tally);

// Adds `elements` of one value. Thread-safe.
void gd_log2_counts_add(struct gd_log2_counts *counts, enum gd_log2_kind kind, float value, uint64_t elements);

// After all threads are done.
void gd_log2_counts_load(const struct gd_log2_counts *counts, enum gd_log2_kind kind,
                         uint64_t ret_counts[static GD_EXPONENTS]);
