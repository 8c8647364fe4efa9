// A row of all streams at a time, for any vector instruction set: what fused_blocks.h makes the kernel of. Included by
// a file per instruction set, after it has defined
//     VEC_LANES        floats of a vector: 4, 8 or 16
//     vec, mask        a vector of floats, and what a comparison of two gives
//     v_zero v_set1 v_load v_store v_stream v_add v_sub v_mul v_div v_sqrt v_abs
//     v_min v_max      the first operand where it is less (greater), else the second
//     v_load_bf16 v_load_f16     of the next VEC_LANES elements, widened
//     v_less_equal v_greater v_not_equal m_and m_or m_all
//     v_keep           the vector where the mask holds, else +0
//     v_choose         the third operand where the mask holds, else the second
//     v_fence          orders v_stream's stores
// Loads and stores take any alignment but v_stream's, which is the vector's.
//
// What bounds this loop is not the number of its operations but the depth of one row's: two roots and divisions one
// behind the other, for which a processor's scheduler holds the next rows' operations only so far. So a row's Adam
// terms are taken while the next row's root is under way. And the elements are taken as they come: what is not finite
// shows in the sums at the end of a block, which is then done again with every element looked at.
#pragma once

#include "chunk_sums.h"

enum {
    ROW_VECS = GD_LANES / VEC_LANES,
    LAGS_AT_ONCE = 8, // more streams than this run short of registers; the others take another pass

    // How far ahead every stream is fetched. The processor's own prefetchers follow ten streams, but not through a
    // row's arithmetic: with 8 lags and the state, 25 M floats from memory took 43 ms without (avx2: 50, sse4: 84), 37
    // (34, 58) with 2048, and about as much from 1024 to 4096.
    PREFETCH_BYTES = 2048,
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

struct vec_sum {
    vec lanes[ROW_VECS];
};

// The float lanes of a block's sums.
struct block_sums {
    struct vec_sum squared_norm;
    struct vec_sum A, B, C, D, relative_square;
    struct vec_sum max_abs, step_size_min;
    struct vec_sum active, finite; // counts, exact; `finite` is kept where elements are looked at
    struct vec_sum dot[LAGS_AT_ONCE];
};

// A row's streams. The state is NULL where there is none, or none in this pass.
struct row {
    const void *gradient;
    const void *const *history;
    const float *root, *maximum;
    float *root_next, *maximum_next;
    bool past_caches;
};

// What the second moment's arithmetic takes from gd_second_moment_step, spread over vectors once a chunk.
struct step_vecs {
    vec gain, keep, max_scale, numerator, numerator_rise, scale, scale_before, scale_fall, inside, inside_before,
        outside, outside_before, outside_fall, accumulator, relative_floor;
};

// What is done to the state. The first three are for the compiler: the usual case without its exceptions.
enum state_form {
    STATE_NONE,
    STATE_USUAL,         // see is_usual()
    STATE_USUAL_MAXIMUM, // ... with amsgrad's maximum
    STATE_ANY,           // as gd_second_moment_step says
};

// How rows are taken: all constants but in the one loop that serves every case.
struct manner {
    enum gd_element_type type;
    uint32_t lags;
    enum state_form state;
    bool counting; // the gradient's own sums are taken: in a chunk's first pass
    bool careful;  // elements may be not finite
};

// A vector's values between the loads and the Adam terms.
struct pending {
    vec g, square;    // the gradient and its clamped square
    vec root;         // before this step
    vec before, next; // the state that divides, before this step and after it
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

// Every rule but adagrad and those with eps inside the root, from the second step on and without a long gap. Here a
// factor of 1 and addends of +0 are left out, which changes no bit.
static bool is_usual(const struct gd_second_moment_step *step) {
    return step->measured && step->has_before && !step->from_square && step->keep == 1.0f && step->inside <= 0.0f &&
           step->inside_before <= 0.0f && step->accumulator == 0.0f;
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

ALWAYS_INLINE vec moved_root(bool usual, const struct gd_second_moment_step *step, const struct step_vecs *s, vec g,
                             vec square, vec r) {
    vec v = v_mul(r, r);
    vec moved;
    if (!usual && step->from_square)
        moved = v_add(square, v_mul(s->gain, v_sub(v, square)));
    else
        moved = v_add(v, v_mul(s->gain, v_sub(square, usual ? v : v_mul(s->keep, v))));
    vec next = v_sqrt(v_min(v_max(moved, v_set1(GD_SECOND_MOMENT_FLOOR)), v_set1(FLT_MAX)));
    mask counted = m_or(v_greater(r, v_zero()), v_not_equal(g, v_zero()));
    return v_keep(counted, next);
}

// The roots under which eps_root is added, now and before, and the fall from the one to the other.
struct denominators {
    vec p, p0, fall;
};

ALWAYS_INLINE struct denominators denominators_of(bool usual, const struct gd_second_moment_step *step,
                                                  const struct step_vecs *s, vec w, vec w_next) {
    vec x = v_mul(w_next, s->scale), x0 = v_mul(w, s->scale_before);
    if (usual || !(step->inside > 0.0f || step->inside_before > 0.0f))
        return (struct denominators){x, x0, v_add(v_mul(v_sub(w, w_next), s->scale), v_mul(w, s->scale_fall))};
    vec p = step->inside > 0.0f ? v_sqrt(v_add(v_mul(x, x), s->inside)) : x;
    vec p0 = step->inside_before > 0.0f ? v_sqrt(v_add(v_mul(x0, x0), s->inside_before)) : x0;
    return (struct denominators){p, p0, v_sub(p0, p)};
}

// Adds a vector's Adam terms.
ALWAYS_INLINE void measure(bool usual, const struct gd_second_moment_step *step, const struct step_vecs *s, size_t j,
                           const struct pending *at, struct block_sums *sums) {
    mask active = v_not_equal(at->g, v_zero()), had_root = v_greater(at->root, v_zero());
    vec w = v_choose(had_root, at->next, at->before);
    struct denominators under = denominators_of(usual, step, s, w, at->next);
    vec x = v_mul(at->next, s->scale);
    vec vhat = usual ? v_mul(x, x) : v_add(v_mul(x, x), s->accumulator);
    vec d = v_add(under.p, s->outside);
    vec d0 = v_add(under.p0, s->outside_before);
    vec q = v_div(v_set1(1.0f), v_mul(d, d0));
    vec e = v_mul(s->numerator, v_mul(d0, q));
    vec change = v_mul(q, v_add(v_mul(s->numerator, v_add(under.fall, s->outside_fall)), v_mul(s->numerator_rise, d)));
    vec relative = v_div(at->square, v_max(vhat, s->relative_floor));
    vec eg;

    sums->step_size_min.lanes[j] = v_min(v_choose(active, v_set1(INFINITY), e), sums->step_size_min.lanes[j]);
    e = v_keep(active, e);
    eg = v_mul(e, at->g);
    change = usual || step->has_before ? v_keep(m_and(active, had_root), change) : v_zero();
    sums->A.lanes[j] = v_add(sums->A.lanes[j], e);
    sums->B.lanes[j] = v_add(sums->B.lanes[j], v_mul(eg, eg));
    sums->C.lanes[j] = v_add(sums->C.lanes[j], v_abs(change));
    sums->D.lanes[j] = v_add(sums->D.lanes[j], v_mul(change, change));
    sums->relative_square.lanes[j] = v_add(sums->relative_square.lanes[j], v_keep(active, relative));
}

ALWAYS_INLINE void store_state(const struct row *row, float *to, vec x) {
    if (row->past_caches)
        v_stream(to, x);
    else
        v_store(to, x);
}

// Moves a vector's state on.
ALWAYS_INLINE struct pending move_state(enum state_form form, const struct row *row,
                                        const struct gd_second_moment_step *step, const struct step_vecs *s, size_t at,
                                        vec g) {
    bool usual = form != STATE_ANY;
    vec square = usual ? v_mul(g, g) : v_min(v_mul(g, g), v_set1(FLT_MAX)); // where it overflows, STATE_ANY comes next
    vec root = v_load(row->root + at);
    vec root_next = moved_root(usual, step, s, g, square, root);
    store_state(row, row->root_next + at, root_next);
    if (form == STATE_USUAL || (form == STATE_ANY && !row->maximum))
        return (struct pending){g, square, root, root, root_next};

    vec maximum = v_load(row->maximum + at);
    vec maximum_next = v_max(maximum, v_mul(root_next, s->max_scale));
    store_state(row, row->maximum_next + at, maximum_next);
    return (struct pending){g, square, root, maximum, maximum_next};
}

ALWAYS_INLINE void fetch_row(const struct manner how, const struct row *row, size_t first) {
    size_t skip = first * gd_element_bytes(how.type) + PREFETCH_BYTES;
    __builtin_prefetch((const uint8_t *)row->gradient + skip);
    for (uint32_t i = 0; i < how.lags; i++)
        __builtin_prefetch((const uint8_t *)row->history[i] + skip);
    if (how.state != STATE_NONE)
        __builtin_prefetch((const uint8_t *)(row->root + first) + PREFETCH_BYTES);
    if (how.state == STATE_USUAL_MAXIMUM)
        __builtin_prefetch((const uint8_t *)(row->maximum + first) + PREFETCH_BYTES);
}

// Adds a vector's own sums and its products with the lags. Returns the gradient.
ALWAYS_INLINE vec add_products(const struct manner how, const struct row *row, size_t at, size_t j,
                               struct block_sums *sums) {
    vec g = load_elements(row->gradient, at, how.type);
    if (how.careful) {
        mask finite = is_finite_vec(g);
        g = v_keep(finite, g);
        sums->finite.lanes[j] = v_add(sums->finite.lanes[j], v_keep(finite, v_set1(1.0f)));
    }
    if (how.counting) {
        sums->active.lanes[j] = v_add(sums->active.lanes[j], v_keep(v_not_equal(g, v_zero()), v_set1(1.0f)));
        sums->max_abs.lanes[j] = v_max(v_abs(g), sums->max_abs.lanes[j]);
        sums->squared_norm.lanes[j] = v_add(sums->squared_norm.lanes[j], v_mul(g, g));
    }
    for (uint32_t i = 0; i < how.lags; i++) {
        vec past = load_elements(row->history[i], at, how.type);
        if (how.careful)
            past = v_keep(is_finite_vec(past), past);
        sums->dot[i].lanes[j] = v_add(sums->dot[i].lanes[j], v_mul(g, past));
    }
    return g;
}

// What a loop over rows keeps: copies, which no store can alias.
struct loop {
    struct row row;
    struct step_vecs s;
    struct block_sums sums;
    struct pending last; // of the vector before; at first of zeros, which add nothing
};

// Adds the terms of the vector before the one at `j`.
ALWAYS_INLINE void measure_last(const struct manner how, const struct gd_second_moment_step *step, size_t j,
                                struct loop *loop) {
    if (how.state != STATE_ANY || step->measured)
        measure(how.state != STATE_ANY, step, &loop->s, (j + ROW_VECS - 1) % ROW_VECS, &loop->last, &loop->sums);
}

ALWAYS_INLINE void take_vec(const struct manner how, const struct gd_second_moment_step *step, size_t at, size_t j,
                            struct loop *loop) {
    vec g = add_products(how, &loop->row, at, j, &loop->sums);
    if (how.state == STATE_NONE)
        return;
    struct pending now = move_state(how.state, &loop->row, step, &loop->s, at, g);
    measure_last(how, step, j, loop);
    loop->last = now;
}

// For each vector of a row, without a loop, in which gcc would keep its sums in memory.
#define EACH_VEC(call)                                                                                                 \
    do {                                                                                                               \
        call(0);                                                                                                       \
        if (ROW_VECS > 1)                                                                                              \
            call(1 % ROW_VECS);                                                                                        \
        if (ROW_VECS > 2) {                                                                                            \
            call(2 % ROW_VECS);                                                                                        \
            call(3 % ROW_VECS);                                                                                        \
        }                                                                                                              \
    } while (0)

// What these rows add to, and no more: the whole struct would be copied through memory.
ALWAYS_INLINE void copy_sums(const struct manner how, const struct block_sums *from, struct block_sums *to) {
    if (how.careful)
        to->finite = from->finite;
    if (how.counting) {
        to->squared_norm = from->squared_norm;
        to->max_abs = from->max_abs;
        to->active = from->active;
    }
    if (how.state != STATE_NONE) {
        to->A = from->A;
        to->B = from->B;
        to->C = from->C;
        to->D = from->D;
        to->relative_square = from->relative_square;
        to->step_size_min = from->step_size_min;
    }
    for (uint32_t i = 0; i < how.lags; i++)
        to->dot[i] = from->dot[i];
}

// Takes `elems` elements, whole rows, from element `first` on.
ALWAYS_INLINE void take_rows(const struct manner how, const struct row *row, const struct gd_second_moment_step *step,
                             const struct step_vecs *s, size_t first, size_t elems, struct block_sums *sums) {
    struct loop loop = {.row = *row};
    if (how.state != STATE_NONE)
        loop.s = *s;
    copy_sums(how, sums, &loop.sums);
    loop.last = (struct pending){v_zero(), v_zero(), v_zero(), v_zero(), v_zero()};
    for (size_t i = 0; i < elems; i += GD_LANES) {
        fetch_row(how, &loop.row, first + i);
#define TAKE(j) take_vec(how, step, first + i + (j)*VEC_LANES, j, &loop)
        EACH_VEC(TAKE);
#undef TAKE
    }
    if (how.state != STATE_NONE)
        measure_last(how, step, 0, &loop);
    copy_sums(how, &loop.sums, sums);
}
