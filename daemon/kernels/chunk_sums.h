// What every kernel does alike: the lanes of a chunk's sums, how they are flushed and reduced, what a chunk must be.
#pragma once

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

// Float expressions must round at every step, or the lanes of two machines part.
_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must be done in float");
#ifdef __FAST_MATH__
#error "the kernels' contract does not survive -ffast-math"
#endif

_Static_assert(GD_FLUSH_ELEMS % GD_LANES == 0, "a block is a whole number of rows");
_Static_assert(GD_CHUNK_ELEMS % GD_FLUSH_ELEMS == 0, "a chunk is a whole number of blocks");

// The double lanes of a chunk's sums, into which the float lanes of each block are flushed.
struct chunk_sums {
    double squared_norm[GD_LANES];
    double A[GD_LANES], B[GD_LANES], C[GD_LANES], D[GD_LANES], relative_square[GD_LANES];
    float max_abs[GD_LANES], step_size_min[GD_LANES];
    uint64_t non_finite;
    uint64_t active;
    double dot[GD_LAG_MAX][GD_LANES];
};

// Comparisons instead of fminf and fmaxf, whose result for a NaN or for zeros of two signs is left open in places:
// these give the second operand unless the first wins, which is also what minps and maxps do.
static inline float lesser(float a, float b) {
    return a < b ? a : b;
}

static inline float greater(float a, float b) {
    return a > b ? a : b;
}

// Adds a block's float lanes to the double ones. The first block's replace them: a lane is never -0, so adding it to 0
// would give the same, and a chunk of one block needs no zeros.
static inline void flush_lanes(bool first, const float lanes[static GD_LANES], double total[static GD_LANES]) {
    if (first) {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            total[lane] = (double)lanes[lane];
    } else {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            total[lane] += (double)lanes[lane];
    }
}

// The contract's tree, in one expression a level, which stays in registers.
static inline double reduce_lanes(const double lane[static GD_LANES]) {
    double a0 = lane[0] + lane[8], a1 = lane[1] + lane[9], a2 = lane[2] + lane[10], a3 = lane[3] + lane[11];
    double a4 = lane[4] + lane[12], a5 = lane[5] + lane[13], a6 = lane[6] + lane[14], a7 = lane[7] + lane[15];
    double b0 = a0 + a4, b1 = a1 + a5, b2 = a2 + a6, b3 = a3 + a7;
    return (b0 + b2) + (b1 + b3);
}

// Maxima and minima do not depend on order: a tree leaves the compiler its vectors.
#define EXTREME_LANE(name, wins)                                                                                       \
    static inline float name(const float lanes[static GD_LANES]) {                                                     \
        float lane[GD_LANES];                                                                                          \
        memcpy(lane, lanes, sizeof(lane));                                                                             \
        for (size_t width = GD_LANES / 2; width > 0; width /= 2) {                                                     \
            for (size_t i = 0; i < width; i++)                                                                         \
                lane[i] = wins(lane[i], lane[i + width]);                                                              \
        }                                                                                                              \
        return lane[0];                                                                                                \
    }
EXTREME_LANE(greatest_lane, greater)
EXTREME_LANE(least_lane, lesser)
#undef EXTREME_LANE

// Without the sums that the first block fills.
static inline void chunk_sums_init(struct chunk_sums *sums, const struct gd_chunk *chunk) {
    if (chunk->elems == 0)
        memset(sums, 0, sizeof(*sums));
    sums->non_finite = sums->active = 0;
    for (size_t lane = 0; lane < GD_LANES; lane++) {
        sums->max_abs[lane] = 0.0f;
        sums->step_size_min[lane] = INFINITY;
    }
}

static inline void fill_step_sums(const struct gd_chunk *chunk, const struct chunk_sums *sums,
                                  struct gd_step_sums *ret_sums) {
    gd_step_sums_init_lags(ret_sums, chunk->lags);
    ret_sums->elements = chunk->elems;
    ret_sums->zeros = chunk->elems - sums->non_finite - sums->active;
    ret_sums->non_finite = sums->non_finite;
    ret_sums->active = sums->active;
    ret_sums->squared_norm = reduce_lanes(sums->squared_norm);
    for (uint32_t i = 0; i < chunk->lags; i++)
        if (chunk->history[i])
            ret_sums->dot[i] = reduce_lanes(sums->dot[i]);
    ret_sums->max_abs = greatest_lane(sums->max_abs);
    if (!chunk->root || !chunk->step->measured)
        return;
    ret_sums->A = reduce_lanes(sums->A);
    ret_sums->B = reduce_lanes(sums->B);
    ret_sums->C = reduce_lanes(sums->C);
    ret_sums->D = reduce_lanes(sums->D);
    ret_sums->relative_square = reduce_lanes(sums->relative_square);
    ret_sums->step_size_min = least_lane(sums->step_size_min);
}

static inline bool is_aligned(const void *pointer, size_t alignment) {
    return (uintptr_t)pointer % alignment == 0;
}

static inline void assert_preconditions(const struct gd_chunk *chunk) {
    enum { STATE_ALIGNMENT = 64 };

    assert(chunk->elems <= GD_CHUNK_ELEMS);
    assert(chunk->lags <= GD_LAG_MAX);
    assert(chunk->type >= GD_F32 && chunk->type <= GD_F16);
    assert(chunk->elems == 0 || chunk->gradient);
    assert(is_aligned(chunk->gradient, gd_element_bytes(chunk->type)));
    for (uint32_t i = 0; i < chunk->lags; i++)
        assert(is_aligned(chunk->history[i], gd_element_bytes(chunk->type)));

    assert(!chunk->root == !chunk->root_next);
    assert(!chunk->maximum == !chunk->maximum_next);
    assert(!chunk->maximum || chunk->root);
    assert(!chunk->root || (chunk->step && chunk->root != chunk->root_next));
    assert(is_aligned(chunk->root, STATE_ALIGNMENT) && is_aligned(chunk->root_next, STATE_ALIGNMENT));
    assert(is_aligned(chunk->maximum, STATE_ALIGNMENT) && is_aligned(chunk->maximum_next, STATE_ALIGNMENT));
}
