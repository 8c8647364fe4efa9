// The reference kernel: kernels.h's contract in portable C, every operation in the contract's order.
//
// A block of GD_FLUSH_ELEMS elements is cleaned into a small buffer that stays in L1 and is padded with +0 to whole
// rows of GD_LANES. The padding changes no bit: a product with +0 adds +0 or -0, and no lane is ever -0, because it
// starts as +0 and x + y is -0 only where both are. Elements of 16 bits are widened into another such buffer first.
#include "chunk_sums.h"
#include "differences.h"

static inline bool is_finite(float x) {
    return fabsf(x) <= FLT_MAX;
}

// x where `keep` holds, else +0, without a branch even where x is costly: as vector code does it.
static inline float kept_if(bool keep, float x) {
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits &= 0 - (uint32_t)keep;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static size_t whole_rows(size_t elems) {
    return (elems + GD_LANES - 1) / GD_LANES;
}

// A block's elements as floats: those of an f32 chunk where they lie, others widened into `space`.
static const float *block_values(enum gd_element_type type, const void *elements, size_t first, size_t elems,
                                 float space[static GD_FLUSH_ELEMS]) {
    if (type == GD_F32)
        return (const float *)elements + first;

    const uint16_t *halves = (const uint16_t *)elements + first;
    if (type == GD_BF16) {
        for (size_t i = 0; i < elems; i++)
            space[i] = gd_widen_bf16(halves[i]);
    } else {
        for (size_t i = 0; i < elems; i++)
            space[i] = gd_widen_f16(halves[i]);
    }
    return space;
}

static void clean_block(const float *values, size_t elems, float ret_clean[static GD_FLUSH_ELEMS]) {
    for (size_t i = 0; i < elems; i++)
        ret_clean[i] = is_finite(values[i]) ? values[i] : 0.0f;
    for (size_t i = elems; i < whole_rows(elems) * GD_LANES; i++)
        ret_clean[i] = 0.0f;
}

static void count_block(const float *values, const float *clean, size_t elems, struct chunk_sums *sums) {
    uint32_t finite = 0;
    uint32_t active = 0;

    for (size_t i = 0; i < elems; i++)
        finite += is_finite(values[i]);
    for (size_t i = 0; i < elems; i++)
        active += clean[i] != 0.0f;
    sums->non_finite += elems - finite;
    sums->active += active;
}

static void raise_max_abs(const float *clean, size_t rows, float max_abs[static GD_LANES]) {
    for (size_t row = 0; row < rows; row++, clean += GD_LANES) {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            max_abs[lane] = greater(fabsf(clean[lane]), max_abs[lane]);
    }
}

static void add_products(const float *a, const float *b, size_t rows, bool first_block, double total[static GD_LANES]) {
    float partial[GD_LANES] = {0}; // a copy that cannot alias a or b, so it can stay in registers

    for (size_t row = 0; row < rows; row++, a += GD_LANES, b += GD_LANES) {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            partial[lane] += a[lane] * b[lane];
    }
    flush_lanes(first_block, partial, total);
}

static void load_row(const float *values, size_t elems, float ret_row[static GD_LANES]) {
    for (size_t lane = 0; lane < GD_LANES; lane++)
        ret_row[lane] = lane < elems ? values[lane] : 0.0f;
}

static void store_row(const float row[static GD_LANES], size_t elems, float *ret_values) {
    memcpy(ret_values, row, elems * sizeof(*row));
}

static inline float clamped_square(float g) {
    return lesser(g * g, FLT_MAX);
}

static void move_roots(const struct gd_second_moment_step *step, const float *restrict gradient,
                       const float *restrict root, float *restrict ret_next) {
    for (size_t lane = 0; lane < GD_LANES; lane++) {
        float g = gradient[lane];
        float r = root[lane];
        float v = r * r;
        float square = clamped_square(g);
        float moved =
            step->from_square ? square + step->gain * (v - square) : v + step->gain * (square - step->keep * v);
        float next = sqrtf(lesser(greater(moved, GD_SECOND_MOMENT_FLOOR), FLT_MAX));
        ret_next[lane] = r > 0.0f || g != 0.0f ? next : 0.0f;
    }
}

static void move_maxima(const struct gd_second_moment_step *step, const float *restrict root_next,
                        const float *restrict maximum, float *restrict ret_next) {
    for (size_t lane = 0; lane < GD_LANES; lane++)
        ret_next[lane] = greater(maximum[lane], root_next[lane] * step->max_scale);
}

// The roots of vhat, and what divides once `inside` is added under them.
static void add_inside(const float *restrict x, float inside, float *restrict ret_p) {
    if (inside > 0.0f) {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            ret_p[lane] = sqrtf(x[lane] * x[lane] + inside);
    } else {
        memcpy(ret_p, x, GD_LANES * sizeof(*x));
    }
}

// A row's denominators before eps is added: now, in the step before, and the fall from the one to the other.
struct denominators {
    float x[GD_LANES]; // the root of vhat now
    float p[GD_LANES];
    float p0[GD_LANES];
    float fall[GD_LANES];
};

static inline void fill_denominators(const struct gd_second_moment_step *restrict step, const float *restrict root,
                                     const float *restrict w_before, const float *restrict w_next,
                                     struct denominators *restrict ret) {
    float w[GD_LANES];
    float x0[GD_LANES];

    for (size_t lane = 0; lane < GD_LANES; lane++) {
        w[lane] = root[lane] > 0.0f ? w_before[lane] : w_next[lane];
        ret->x[lane] = w_next[lane] * step->scale;
        x0[lane] = w[lane] * step->scale_before;
    }
    add_inside(ret->x, step->inside, ret->p);
    add_inside(x0, step->inside_before, ret->p0);
    if (step->inside > 0.0f || step->inside_before > 0.0f) {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            ret->fall[lane] = ret->p0[lane] - ret->p[lane];
    } else {
        for (size_t lane = 0; lane < GD_LANES; lane++)
            ret->fall[lane] = (w[lane] - w_next[lane]) * step->scale + w[lane] * step->scale_fall;
    }
}

// The float lanes of a block's Adam terms, and the chunk's least step size.
struct adam_lanes {
    float A[GD_LANES], B[GD_LANES], C[GD_LANES], D[GD_LANES], relative_square[GD_LANES];
    float step_size_min[GD_LANES];
};

// Adds a row's Adam terms. `w_before` and `w_next` are the state that divides, before this step and after it: the
// maximum where there is one, else the root. Inactive lanes compute too, possibly 1 / 0, and are then left out.
static void measure_row(const struct gd_second_moment_step *restrict step, const float *restrict gradient,
                        const float *restrict root, const float *restrict w_before, const float *restrict w_next,
                        struct adam_lanes *restrict sums) {
    struct denominators row;
    const bool has_before = step->has_before;

    fill_denominators(step, root, w_before, w_next, &row);
    for (size_t lane = 0; lane < GD_LANES; lane++) {
        float g = gradient[lane];
        float x = row.x[lane];
        float d = row.p[lane] + step->outside;
        float d0 = row.p0[lane] + step->outside_before;
        float q = 1.0f / (d * d0);
        float e = step->numerator * (d0 * q);
        float change = q * (step->numerator * (row.fall[lane] + step->outside_fall) + step->numerator_rise * d);
        float relative_square = clamped_square(g) / greater(x * x + step->accumulator, step->relative_floor);
        bool active = g != 0.0f;

        e = kept_if(active, e);
        change = kept_if(active & has_before & (root[lane] > 0.0f), change);
        sums->A[lane] += e;
        sums->B[lane] += (e * g) * (e * g);
        sums->C[lane] += fabsf(change);
        sums->D[lane] += change * change;
        sums->relative_square[lane] += kept_if(active, relative_square);
        sums->step_size_min[lane] = lesser(active ? e : INFINITY, sums->step_size_min[lane]);
    }
}

// Moves the state of `elems` <= GD_LANES elements from `first` on and adds their Adam terms.
static inline void second_moment_row(const struct gd_chunk *chunk, size_t first, size_t elems, const float *gradient,
                                     struct adam_lanes *sums) {
    float root[GD_LANES];
    float root_next[GD_LANES];
    float maximum[GD_LANES];
    float maximum_next[GD_LANES];

    load_row(chunk->root + first, elems, root);
    move_roots(chunk->step, gradient, root, root_next);
    store_row(root_next, elems, chunk->root_next + first);
    if (chunk->maximum) {
        load_row(chunk->maximum + first, elems, maximum);
        move_maxima(chunk->step, root_next, maximum, maximum_next);
        store_row(maximum_next, elems, chunk->maximum_next + first);
    }
    if (chunk->step->measured) {
        measure_row(chunk->step, gradient, root, chunk->maximum ? maximum : root,
                    chunk->maximum ? maximum_next : root_next, sums);
    }
}

static void second_moment_block(const struct gd_chunk *chunk, size_t first, size_t elems, const float *gradient,
                                struct chunk_sums *sums) {
    struct adam_lanes lanes = {.A = {0}};
    size_t whole = elems - elems % GD_LANES;

    memcpy(lanes.step_size_min, sums->step_size_min, sizeof(lanes.step_size_min));
    for (size_t i = 0; i < whole; i += GD_LANES)
        second_moment_row(chunk, first + i, GD_LANES, gradient + i, &lanes);
    if (whole < elems)
        second_moment_row(chunk, first + whole, elems - whole, gradient + whole, &lanes);

    flush_lanes(first == 0, lanes.A, sums->A);
    flush_lanes(first == 0, lanes.B, sums->B);
    flush_lanes(first == 0, lanes.C, sums->C);
    flush_lanes(first == 0, lanes.D, sums->D);
    flush_lanes(first == 0, lanes.relative_square, sums->relative_square);
    memcpy(sums->step_size_min, lanes.step_size_min, sizeof(lanes.step_size_min));
}

static void analyse_block(const struct gd_chunk *chunk, size_t first, size_t elems, struct chunk_sums *sums) {
    float gradient[GD_FLUSH_ELEMS];
    float past[GD_FLUSH_ELEMS];
    float widened[GD_FLUSH_ELEMS];
    size_t rows = whole_rows(elems);
    const float *values = block_values(chunk->type, chunk->gradient, first, elems, widened);

    clean_block(values, elems, gradient);
    count_block(values, gradient, elems, sums);
    raise_max_abs(gradient, rows, sums->max_abs);
    add_products(gradient, gradient, rows, first == 0, sums->squared_norm);
    for (uint32_t i = 0; i < chunk->lags; i++) {
        if (!chunk->history[i])
            continue;
        values = block_values(chunk->type, chunk->history[i], first, elems, widened);
        clean_block(values, elems, past);
        add_products(gradient, past, rows, first == 0, sums->dot[i]);
    }
    if (chunk->root)
        second_moment_block(chunk, first, elems, gradient, sums);
}

static void analyse(const struct gd_chunk *chunk, struct gd_step_sums *ret_sums) {
    struct chunk_sums sums;

    assert_preconditions(chunk);
    chunk_sums_init(&sums, chunk);
    for (size_t first = 0; first < chunk->elems; first += GD_FLUSH_ELEMS) {
        size_t left = chunk->elems - first;
        analyse_block(chunk, first, left < GD_FLUSH_ELEMS ? left : GD_FLUSH_ELEMS, &sums);
    }
    fill_step_sums(chunk, &sums, ret_sums);
}

const struct gd_kernels gd_kernels_scalar = {
    .name = "scalar",
    .analyse = analyse,
    .differences = differences,
};
