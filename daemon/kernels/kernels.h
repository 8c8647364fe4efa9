// The hot loop: one pass over a chunk of a snapshot, its history and its optimiser state yields the chunk's step sums.
//
// Contract, which every instruction set meets to the last bit:
//  - Element i of a chunk belongs to float lane i mod 16. Each sum multiplies, then adds (no FMA contraction), into its
//    lane. After every GD_FLUSH_ELEMS elements, and at the end, the 16 float lanes are added to 16 double lanes and
//    set to 0. The double lanes are reduced in the tree  lane[i] += lane[i + w]  for w = 8, 4, 2, 1 and i < w.
//  - Elements of every type are widened to float, exactly (element_type.h). From there on the type makes no difference:
//    sums and state have the bits of an f32 chunk of the same values.
//  - Counts are exact; maxima and minima do not depend on order.
//  - A non-finite element is counted and replaced by +0, in the snapshot and in each of its lags.
//  - Second moment, in float, in this order:
//        square = min(g g, FLT_MAX)
//        v      = r r                                  (r: the old root)
//        v'     = v + gain (square - keep v)           or, with `from_square`,  v' = square + gain (v - square)
//        r'     = sqrt(min(max(v', GD_SECOND_MOMENT_FLOOR), FLT_MAX)) if r > 0 or g is active, else 0
//        m'     = max(m, r' max_scale)                 (amsgrad only; m: the old maximum's root)
//    so a root of 0 means "never counted". Coordinates that are not active keep decaying.
//  - Effective step of an active coordinate, with w = m where there is a maximum and r elsewhere; a coordinate whose
//    old root is 0 takes its old w from the new one:
//        x = w' scale,  x0 = w scale_before             (the roots of vhat)
//        p = sqrt(x x + inside) if inside > 0, else x;  p0 likewise from x0 and inside_before
//        fall = p0 - p if inside > 0 or inside_before > 0, else (w - w') scale + w scale_fall
//        d = p + outside;  d0 = p0 + outside_before;  q = 1 / (d d0)
//        e = numerator (d0 q)
//        e - e0 = q (numerator (fall + outside_fall) + numerator_rise d)
//        A += e;  B += (e g)(e g);  relative_square += square / max(x x + accumulator, relative_floor)
//        if `has_before` and the old root is > 0:  C += |e - e0|;  D += (e - e0)(e - e0)
//    One root and two divisions; the floor keeps d d0 above the subnormals.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "element_type.h"
#include "step_sums.h"

enum {
    GD_LANES = 16,
    GD_FLUSH_ELEMS = 1024,  // float lanes take 64 addends each: what bounds the rounding error
    GD_CHUNK_ELEMS = 65536, // 256 KiB of f32: large against a call, small against a core's share of a model
};

// Second moments below this are raised to it: the least whose product of two roots, d d0, is no subnormal
// (FLT_MIN = 1.1755e-38; roots of 1.1e-19).
#define GD_SECOND_MOMENT_FLOOR 1.21e-38f

// How the optimiser's state moves in this step and how large its effective step is; the same for a whole group.
// Derived from the rule by diagnostics/adam.h.
struct gd_second_moment_step {
    float gain;       // weight of the new square: EMA: 1 - b2^(k+1); adagrad: k + 1; adafom: (k + 1) / t
    float keep;       // 1; adagrad: 0
    bool from_square; // `gain` is the old moment's weight instead: chosen where the square has more than half of it, so
                      // that what is small is added to what is large and nothing cancels
    float max_scale;  // amsgrad: 1, or 1 / sqrt(1 - b2^t) where the maximum is of corrected moments

    bool measured;   // false: the state moves, no Adam term is summed
    bool has_before; // the step before this one is known: C and D are summed
    // Changes are given apart, rounded once from doubles: the difference of two rounded values would be noise.
    float numerator;      // learning rate, with adagrad's decay
    float numerator_rise; // numerator minus the one before
    float scale;          // 1 / sqrt(1 - b2^t) where vhat is corrected, else 1; now ...
    float scale_before;   // ... and in the step before
    float scale_fall;     // scale_before - scale
    float inside;         // added to vhat under the root (eps_root, adagrad's initial accumulator), now ...
    float inside_before;  // ... and in the step before
    float outside;        // added to the root (eps), now ...
    float outside_before; // ... and in the step before
    float outside_fall;   // outside_before - outside
    float accumulator;    // adagrad's initial accumulator (vhat holds it; eps_root is not part of vhat)
    float relative_floor; // eps^2
};

// A chunk: at most GD_CHUNK_ELEMS consecutive elements of one group. Buffers of `elems` elements, not overlapping;
// `root` may be NULL (then no second moment is kept and the sums over active coordinates other than `active` stay
// neutral), `maximum` is NULL for every rule but amsgrad. Gradient and history have elements of `type` and are aligned
// to their element (f32: 4 bytes, bf16 and f16: 2); the state is float whatever the type, aligned to 64 bytes.
struct gd_chunk {
    size_t elems;
    enum gd_element_type type;
    const void *gradient;
    uint32_t lags;                   // entries in `history`
    const void *history[GD_LAG_MAX]; // index m - 1: lag m; NULL: no such snapshot, dot stays 0
    const struct gd_second_moment_step *step;
    const float *root;    // sqrt(v) before this step
    float *root_next;     // ... and after it
    const float *maximum; // sqrt of the running maximum before ...
    float *maximum_next;  // ... and after
    bool past_caches;     // the state is stored past them: it will long have left them when it is needed again
};

// A chunk of a vector whose movement is measured, see differences.h: at most GD_CHUNK_ELEMS consecutive elements.
// Aligned to their element.
struct gd_difference_chunk {
    size_t elems;
    enum gd_element_type type;
    enum gd_element_type other_type;
    const void *now;
    const void *before; // a snapshot before; NULL: none
    const void *start;  // the first one; NULL: none
    // Another vector's elements at the same places, now and at the same snapshot before; NULL: none, or no such.
    const void *other_now;
    const void *other_before;
};

// Sums over finite differences; they merge by addition.
struct gd_difference_sums {
    double squared_norm;       // sum x_t^2
    double squared_step;       // sum (x_t - x_before)^2
    double squared_from_start; // sum (x_t - x_start)^2
    double other_squared_step; // sum (g_t - g_before)^2
    double product;            // sum (x_t - x_before)(g_t - g_before)
};

struct gd_kernels {
    const char *name;
    // Fills `ret_sums`, but for lags beyond chunk->lags. Thread-safe; touches nothing but the chunk's buffers.
    void (*analyse)(const struct gd_chunk *chunk, struct gd_step_sums *ret_sums);
    // Fills `ret_sums`; what has no vector stays 0. Thread-safe.
    void (*differences)(const struct gd_difference_chunk *chunk, struct gd_difference_sums *ret_sums);
};

// The reference, in portable C.
extern const struct gd_kernels gd_kernels_scalar;

// Those for an instruction set; they give the reference's results to the last bit.
#ifdef __x86_64__
extern const struct gd_kernels gd_kernels_avx512;
extern const struct gd_kernels gd_kernels_avx2;
extern const struct gd_kernels gd_kernels_sse4;
#endif
#ifdef __aarch64__
extern const struct gd_kernels gd_kernels_neon;
#endif

// The kernels of this process, chosen once; the environment variable GRADIENTD_KERNELS names one instead.
// Returns 0, or -EINVAL when that name is unknown or not supported by this machine.
int gd_kernels_select(const char *name, const struct gd_kernels **ret_kernels);

// Variant `index` of those this build has, fastest first, and whether this machine can run it; NULL behind the last.
const struct gd_kernels *gd_kernels_variant(size_t index, bool *ret_supported);
