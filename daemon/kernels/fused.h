// The kernel for any vector instruction set: one loop that takes a row of all streams at a time. Included by a file per
// instruction set, after it has defined
//     VEC_LANES        floats of a vector: 4, 8 or 16
//     vec, mask        a vector of floats, and what a comparison of two gives
//     v_zero v_set1 v_load v_store v_stream v_add v_sub v_mul v_div v_sqrt v_abs
//     v_min v_max      the first operand where it is less (greater), else the second
//     v_load_bf16 v_load_f16     of the next VEC_LANES elements, widened
//     v_less_equal v_greater v_not_equal m_and m_count
//     v_keep           the vector where the mask holds, else +0
//     v_choose         the second vector where the mask holds, else the first
//     v_fence          orders v_stream's stores
// Loads and stores take any alignment but v_stream's, which is the vector's.
#pragma once

#include "chunk_sums.h"

enum {
    ROW_VECS = GD_LANES / VEC_LANES,
    LAGS_AT_ONCE = 8, // more streams than this run short of registers; the others take another pass
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct vec_sum {
    vec lanes[ROW_VECS];
};

// The float lanes of a block's sums.
struct block_sums {
    struct vec_sum squared_norm;
    struct vec_sum dot[LAGS_AT_ONCE];
    struct vec_sum A, B, C, D, relative_square;
    struct vec_sum max_abs, step_size_min;
    uint64_t non_finite;
    uint64_t active;
};

// A row's streams. The state is NULL where there is none, or none in this pass.
struct row {
    const void *gradient;
    const void *const *history; // `lags` pointers
    const float *root, *maximum;
    float *root_next, *maximum_next;
};

// What the second moment's arithmetic takes from gd_second_moment_step, spread over vectors once a block.
struct step_vecs {
    vec gain, keep, max_scale, numerator, numerator_rise, scale, scale_before, scale_fall, inside, inside_before,
        outside, outside_before, outside_fall, accumulator, relative_floor;
};

static struct step_vecs spread(const struct gd_second_moment_step *step) {
    return (struct step_vecs){
        .gain = v_set1(step->gain),
        .keep = v_set1(step->keep),
        .max_scale = v_set1(step->max_scale),
        .numerator = v_set1(step->numerator),
        .numerator_rise = v_set1(step->numerator_rise),
        .scale = v_set1(step->scale),
        .scale_before = v_set1(step->scale_before),
        .scale_fall = v_set1(step->scale_fall),
        .inside = v_set1(step->inside),
        .inside_before = v_set1(step->inside_before),
        .outside = v_set1(step->outside),
        .outside_before = v_set1(step->outside_before),
        .outside_fall = v_set1(step->outside_fall),
        .accumulator = v_set1(step->accumulator),
        .relative_floor = v_set1(step->relative_floor),
    };
}

ALWAYS_INLINE vec load_elements(const void *elements, size_t first, enum gd_element_type type) {
    if (type == GD_F32)
        return v_load((const float *)elements + first);
    const uint16_t *halves = (const uint16_t *)elements + first;
    return type == GD_BF16 ? v_load_bf16(halves) : v_load_f16(halves);
}

ALWAYS_INLINE mask is_finite_vec(vec x) {
    return v_less_equal(v_abs(x), v_set1(FLT_MAX));
}

ALWAYS_INLINE vec clamped_square(vec g) {
    return v_min(v_mul(g, g), v_set1(FLT_MAX));
}

ALWAYS_INLINE vec moved_root(const struct gd_second_moment_step *step, const struct step_vecs *s, vec g, vec r) {
    vec v = v_mul(r, r);
    vec square = clamped_square(g);
    vec moved = step->from_square ? v_add(square, v_mul(s->gain, v_sub(v, square)))
                                  : v_add(v, v_mul(s->gain, v_sub(square, v_mul(s->keep, v))));
    vec next = v_sqrt(v_min(v_max(moved, v_set1(GD_SECOND_MOMENT_FLOOR)), v_set1(FLT_MAX)));
    mask counted = m_or(v_greater(r, v_zero()), v_not_equal(g, v_zero()));
    return v_keep(counted, next);
}

// Adds a vector's Adam terms; `w_before` and `w_next` are the state that divides.
ALWAYS_INLINE void measure(const struct gd_second_moment_step *step, const struct step_vecs *s, size_t j, vec g,
                           vec root, vec w_before, vec w_next, struct block_sums *sums) {
    mask active = v_not_equal(g, v_zero());
    mask had_root = v_greater(root, v_zero());
    vec w = v_choose(had_root, w_next, w_before);
    vec x = v_mul(w_next, s->scale);
    vec x0 = v_mul(w, s->scale_before);
    vec p = step->inside > 0.0f ? v_sqrt(v_add(v_mul(x, x), s->inside)) : x;
    vec p0 = step->inside_before > 0.0f ? v_sqrt(v_add(v_mul(x0, x0), s->inside_before)) : x0;
    vec fall = step->inside > 0.0f || step->inside_before > 0.0f
                   ? v_sub(p0, p)
                   : v_add(v_mul(v_sub(w, w_next), s->scale), v_mul(w, s->scale_fall));
    vec d = v_add(p, s->outside);
    vec d0 = v_add(p0, s->outside_before);
    vec q = v_div(v_set1(1.0f), v_mul(d, d0));
    vec e = v_mul(s->numerator, v_mul(d0, q));
    vec change = v_mul(q, v_add(v_mul(s->numerator, v_add(fall, s->outside_fall)), v_mul(s->numerator_rise, d)));
    vec relative = v_div(clamped_square(g), v_max(v_add(v_mul(x, x), s->accumulator), s->relative_floor));
    vec eg;

    sums->step_size_min.lanes[j] = v_min(v_choose(active, v_set1(INFINITY), e), sums->step_size_min.lanes[j]);
    e = v_keep(active, e);
    eg = v_mul(e, g);
    change = step->has_before ? v_keep(m_and(active, had_root), change) : v_zero();
    sums->A.lanes[j] = v_add(sums->A.lanes[j], e);
    sums->B.lanes[j] = v_add(sums->B.lanes[j], v_mul(eg, eg));
    sums->C.lanes[j] = v_add(sums->C.lanes[j], v_abs(change));
    sums->D.lanes[j] = v_add(sums->D.lanes[j], v_mul(change, change));
    sums->relative_square.lanes[j] = v_add(sums->relative_square.lanes[j], v_keep(active, relative));
}

ALWAYS_INLINE void state_vec(const struct row *row, const struct gd_second_moment_step *step, const struct step_vecs *s,
                             size_t first, size_t j, vec g, struct block_sums *sums) {
    vec root = v_load(row->root + first);
    vec root_next = moved_root(step, s, g, root);
    vec before = root, next = root_next;

    v_stream(row->root_next + first, root_next);
    if (row->maximum) {
        before = v_load(row->maximum + first);
        next = v_max(before, v_mul(root_next, s->max_scale));
        v_stream(row->maximum_next + first, next);
    }
    if (step->measured)
        measure(step, s, j, g, root, before, next, sums);
}

// Takes the row at element `first`. In a `counting` pass the gradient's own sums are taken too.
ALWAYS_INLINE void take_row(const struct row *row, enum gd_element_type type, uint32_t lags, bool counting,
                            const struct gd_second_moment_step *step, const struct step_vecs *s, size_t first,
                            struct block_sums *sums) {
    for (size_t j = 0; j < ROW_VECS; j++) {
        size_t at = first + j * VEC_LANES;
        vec raw = load_elements(row->gradient, at, type);
        mask finite = is_finite_vec(raw);
        vec g = v_keep(finite, raw);
        if (counting) {
            vec size = v_abs(g);
            sums->non_finite += VEC_LANES - m_count(finite);
            sums->active += m_count(v_not_equal(g, v_zero()));
            sums->max_abs.lanes[j] = v_max(size, sums->max_abs.lanes[j]);
            sums->squared_norm.lanes[j] = v_add(sums->squared_norm.lanes[j], v_mul(g, g));
        }
        for (uint32_t i = 0; i < lags; i++) {
            vec past = load_elements(row->history[i], at, type);
            past = v_keep(is_finite_vec(past), past);
            sums->dot[i].lanes[j] = v_add(sums->dot[i].lanes[j], v_mul(g, past));
        }
        if (row->root)
            state_vec(row, step, s, at, j, g, sums);
    }
}

static void add_lanes(const struct vec_sum *sum, struct lane_sum *total) {
    for (size_t j = 0; j < ROW_VECS; j++)
        v_store(total->partial + j * VEC_LANES, sum->lanes[j]);
    lane_sum_flush(total);
}

static void load_lanes(const float lanes[static GD_LANES], struct vec_sum *sum) {
    for (size_t j = 0; j < ROW_VECS; j++)
        sum->lanes[j] = v_load(lanes + j * VEC_LANES);
}

static void store_lanes(const struct vec_sum *sum, float lanes[static GD_LANES]) {
    for (size_t j = 0; j < ROW_VECS; j++)
        v_store(lanes + j * VEC_LANES, sum->lanes[j]);
}

static struct vec_sum no_sum(void) {
    struct vec_sum sum;
    for (size_t j = 0; j < ROW_VECS; j++)
        sum.lanes[j] = v_zero();
    return sum;
}

// A pass: the gradient with up to LAGS_AT_ONCE lags, and with the state where `row` has it.
struct pass {
    struct row row;
    enum gd_element_type type;
    bool counting;
    const struct gd_second_moment_step *step;
    struct step_vecs step_vecs;
    const void *history[LAGS_AT_ONCE];
    uint32_t lag[LAGS_AT_ONCE]; // index of each in the chunk
};

// Elements behind the last whole row, in a row of their own that is filled with zeros.
struct tail {
    float gradient[GD_LANES];
    float history[LAGS_AT_ONCE][GD_LANES];
    float root[GD_LANES], maximum[GD_LANES];
    float root_next[GD_LANES], maximum_next[GD_LANES];
};

ALWAYS_INLINE void take_tail(const struct pass *pass, uint32_t lags, size_t first, size_t elems,
                             struct block_sums *sums) {
    struct tail tail __attribute__((aligned(64)));
    const void *history[LAGS_AT_ONCE];
    const struct row *row = &pass->row;
    size_t bytes = elems * gd_element_bytes(pass->type), skip = first * gd_element_bytes(pass->type);

    memset(&tail, 0, sizeof(tail)); // +0 in every type
    memcpy(tail.gradient, (const uint8_t *)row->gradient + skip, bytes);
    for (uint32_t i = 0; i < lags; i++)
        history[i] = memcpy(tail.history[i], (const uint8_t *)pass->history[i] + skip, bytes);
    struct row padded = {.gradient = tail.gradient, .history = history};
    if (row->root) {
        padded.root = memcpy(tail.root, row->root + first, elems * sizeof(float));
        padded.root_next = tail.root_next;
    }
    if (row->maximum) {
        padded.maximum = memcpy(tail.maximum, row->maximum + first, elems * sizeof(float));
        padded.maximum_next = tail.maximum_next;
    }
    take_row(&padded, pass->type, lags, pass->counting, pass->step, &pass->step_vecs, 0, sums);
    v_fence();
    if (row->root)
        memcpy(row->root_next + first, tail.root_next, elems * sizeof(float));
    if (row->maximum)
        memcpy(row->maximum_next + first, tail.maximum_next, elems * sizeof(float));
}

// One block, in lanes that start from 0 but for the extremes.
ALWAYS_INLINE void take_block(const struct pass *pass, uint32_t lags, size_t first, size_t elems,
                              struct chunk_sums *sums) {
    struct block_sums block;
    size_t whole = elems - elems % GD_LANES;

    block.squared_norm = block.A = block.B = block.C = block.D = block.relative_square = no_sum();
    for (uint32_t i = 0; i < lags; i++)
        block.dot[i] = no_sum();
    load_lanes(sums->max_abs, &block.max_abs);
    load_lanes(sums->adam.step_size_min, &block.step_size_min);
    block.non_finite = block.active = 0;

    for (size_t i = 0; i < whole; i += GD_LANES)
        take_row(&pass->row, pass->type, lags, pass->counting, pass->step, &pass->step_vecs, first + i, &block);
    if (whole < elems)
        take_tail(pass, lags, first + whole, elems - whole, &block);

    for (uint32_t i = 0; i < lags; i++)
        add_lanes(&block.dot[i], &sums->dot[pass->lag[i]]);
    if (pass->row.root) {
        add_lanes(&block.A, &sums->adam.A);
        add_lanes(&block.B, &sums->adam.B);
        add_lanes(&block.C, &sums->adam.C);
        add_lanes(&block.D, &sums->adam.D);
        add_lanes(&block.relative_square, &sums->adam.relative_square);
        store_lanes(&block.step_size_min, sums->adam.step_size_min);
    }
    if (pass->counting) {
        add_lanes(&block.squared_norm, &sums->squared_norm);
        store_lanes(&block.max_abs, sums->max_abs);
        sums->non_finite += block.non_finite;
        sums->active += block.active;
    }
}

// The loop for each number of lags, which the compiler unrolls.
#define TAKE_BLOCKS(n)                                                                                                 \
    static void take_blocks_##n(const struct pass *pass, size_t elems, struct chunk_sums *sums) {                      \
        for (size_t first = 0; first < elems; first += GD_FLUSH_ELEMS) {                                               \
            size_t left = elems - first;                                                                               \
            take_block(pass, n, first, left < GD_FLUSH_ELEMS ? left : GD_FLUSH_ELEMS, sums);                           \
        }                                                                                                              \
    }
TAKE_BLOCKS(0)
TAKE_BLOCKS(1)
TAKE_BLOCKS(2)
TAKE_BLOCKS(3)
TAKE_BLOCKS(4)
TAKE_BLOCKS(5)
TAKE_BLOCKS(6)
TAKE_BLOCKS(7)
TAKE_BLOCKS(8)
#undef TAKE_BLOCKS

static void (*const take_blocks[LAGS_AT_ONCE + 1])(const struct pass *pass, size_t elems, struct chunk_sums *sums) = {
    take_blocks_0, take_blocks_1, take_blocks_2, take_blocks_3, take_blocks_4,
    take_blocks_5, take_blocks_6, take_blocks_7, take_blocks_8,
};

static void analyse(const struct gd_chunk *chunk, struct gd_step_sums *ret_sums) {
    struct chunk_sums sums;
    struct pass pass = {
        .row = {.gradient = chunk->gradient,
                .root = chunk->root,
                .root_next = chunk->root_next,
                .maximum = chunk->maximum,
                .maximum_next = chunk->maximum_next},
        .type = chunk->type,
        .counting = true,
        .step = chunk->step,
    };
    uint32_t next = 0;

    assert_preconditions(chunk);
    chunk_sums_init(&sums);
    if (chunk->root)
        pass.step_vecs = spread(chunk->step);
    pass.row.history = pass.history;
    do {
        uint32_t lags = 0;
        for (; next < chunk->lags && lags < LAGS_AT_ONCE; next++) {
            if (!chunk->history[next])
                continue;
            pass.history[lags] = chunk->history[next];
            pass.lag[lags++] = next;
        }
        take_blocks[lags](&pass, chunk->elems, &sums);
        pass.counting = false; // what one pass is enough for
        pass.row.root = pass.row.maximum = NULL;
    } while (next < chunk->lags);
    v_fence();
    fill_step_sums(chunk, &sums, ret_sums);
}
