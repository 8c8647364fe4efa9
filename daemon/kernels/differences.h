// The second hot loop: how far vectors have moved. One pass over a chunk of a snapshot, the snapshot before it and the
// first one, in which differences are taken element by element and never through dot products, where they would cancel.
//
// Portable C, which each instruction set's file compiles for itself. The contract is that of kernels.h but for this:
// everything is done in double, in which a difference of two elements is exact and no square overflows or vanishes.
// Element i belongs to double lane i mod 16; the lanes are reduced in the same tree. A difference of which an element
// is not finite is 0.
#pragma once

#include "chunk_sums.h"

enum { DIFFERENCE_BLOCK_ELEMS = 512 }; // of five vectors, widened, half an L1 cache

// A block's elements as floats, padded with zeros to whole rows: where they lie, or in `space`.
static inline const float *difference_values(enum gd_element_type type, const void *elements, size_t first,
                                             size_t elems, float space[static DIFFERENCE_BLOCK_ELEMS]) {
    if (type == GD_F32 && elems % GD_LANES == 0)
        return (const float *)elements + first;

    const uint16_t *halves = (const uint16_t *)elements + first;
    if (type == GD_F32) {
        memcpy(space, (const float *)elements + first, elems * sizeof(*space));
    } else if (type == GD_BF16) {
        for (size_t i = 0; i < elems; i++)
            space[i] = gd_widen_bf16(halves[i]);
    } else {
        for (size_t i = 0; i < elems; i++)
            space[i] = gd_widen_f16(halves[i]);
    }
    for (size_t i = elems; i % GD_LANES != 0; i++)
        space[i] = 0.0f;
    return space;
}

static inline double finite_or_zero(double x) {
    return fabs(x) <= DBL_MAX ? x : 0.0;
}

static inline void add_squares(const float *values, size_t rows, double lanes[static GD_LANES]) {
    for (size_t row = 0; row < rows; row++)
        for (size_t lane = 0; lane < GD_LANES; lane++) {
            double value = finite_or_zero((double)values[row * GD_LANES + lane]);
            lanes[lane] += value * value;
        }
}

static inline void add_squared_differences(const float *a, const float *b, size_t rows, double lanes[static GD_LANES]) {
    for (size_t row = 0; row < rows; row++)
        for (size_t lane = 0; lane < GD_LANES; lane++) {
            size_t i = row * GD_LANES + lane;
            double difference = finite_or_zero((double)a[i] - (double)b[i]);
            lanes[lane] += difference * difference;
        }
}

// Of (a - b) and (c - d).
static inline void add_difference_products(const float *a, const float *b, const float *c, const float *d, size_t rows,
                                           double lanes[static GD_LANES]) {
    for (size_t row = 0; row < rows; row++)
        for (size_t lane = 0; lane < GD_LANES; lane++) {
            size_t i = row * GD_LANES + lane;
            double left = finite_or_zero((double)a[i] - (double)b[i]);
            double right = finite_or_zero((double)c[i] - (double)d[i]);
            lanes[lane] += left * right;
        }
}

static inline void assert_difference_preconditions(const struct gd_difference_chunk *chunk) {
    assert(chunk->elems <= GD_CHUNK_ELEMS);
    assert(chunk->elems == 0 || chunk->now);
    assert(chunk->type >= GD_F32 && chunk->type <= GD_F16);
    assert(!chunk->other_now == !chunk->other_before);
    assert(!chunk->other_now || (chunk->before && chunk->other_type >= GD_F32 && chunk->other_type <= GD_F16));
}

static void differences(const struct gd_difference_chunk *chunk, struct gd_difference_sums *ret_sums) {
    double norm[GD_LANES] = {0}, before[GD_LANES] = {0}, start[GD_LANES] = {0}, other[GD_LANES] = {0};
    double product[GD_LANES] = {0};

    assert_difference_preconditions(chunk);
    for (size_t first = 0; first < chunk->elems; first += DIFFERENCE_BLOCK_ELEMS) {
        float space[5][DIFFERENCE_BLOCK_ELEMS];
        size_t left = chunk->elems - first;
        size_t elems = left < DIFFERENCE_BLOCK_ELEMS ? left : DIFFERENCE_BLOCK_ELEMS;
        size_t rows = (elems + GD_LANES - 1) / GD_LANES;
        const float *x = difference_values(chunk->type, chunk->now, first, elems, space[0]);
        add_squares(x, rows, norm);
        if (chunk->start)
            add_squared_differences(x, difference_values(chunk->type, chunk->start, first, elems, space[1]), rows,
                                    start);
        if (!chunk->before)
            continue;
        const float *past = difference_values(chunk->type, chunk->before, first, elems, space[2]);
        add_squared_differences(x, past, rows, before);
        if (!chunk->other_now)
            continue;
        const float *g = difference_values(chunk->other_type, chunk->other_now, first, elems, space[3]);
        const float *g_past = difference_values(chunk->other_type, chunk->other_before, first, elems, space[4]);
        add_squared_differences(g, g_past, rows, other);
        add_difference_products(x, past, g, g_past, rows, product);
    }
    *ret_sums = (struct gd_difference_sums){
        .squared_norm = reduce_lanes(norm),
        .squared_step = reduce_lanes(before),
        .squared_from_start = reduce_lanes(start),
        .other_squared_step = reduce_lanes(other),
        .product = reduce_lanes(product),
    };
}
