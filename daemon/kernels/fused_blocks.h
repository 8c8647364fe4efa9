// The kernel for any vector instruction set, made of fused.h's rows: which loop takes a block, what is done about its
// tail and about elements that are not finite, and how blocks become a chunk's sums.
#pragma once

#include "fused.h"

// A pass: the gradient with up to LAGS_AT_ONCE lags, and with the state where `row` has it.
struct pass {
    struct step_vecs step_vecs;
    const struct gd_second_moment_step *step;
    const void *history[LAGS_AT_ONCE];
    struct row row;
    struct manner how;          // never careful
    uint32_t lag[LAGS_AT_ONCE]; // index of each in the chunk
};

// Takes whole rows of `row`, `elems` elements from `first` on.
typedef void rows_taker(const struct pass *pass, const struct row *row, size_t first, size_t elems,
                        struct block_sums *sums);

// A loop for each type, number of lags and form of the state, with those as constants.
#define TAKE_ROWS(type, state, counting, n)                                                                            \
    static void take_rows_##type##_##state##_##counting##_##n(const struct pass *pass, const struct row *row,          \
                                                              size_t first, size_t elems, struct block_sums *sums) {   \
        const struct manner how = {type, n, state, counting, false};                                                   \
        take_rows(how, row, pass->step, &pass->step_vecs, first, elems, sums);                                         \
    }
#define EACH_NUMBER_OF_LAGS(X, type, state, counting)                                                                  \
    X(type, state, counting, 0)                                                                                        \
    X(type, state, counting, 1)                                                                                        \
    X(type, state, counting, 2)                                                                                        \
    X(type, state, counting, 3)                                                                                        \
    X(type, state, counting, 4)                                                                                        \
    X(type, state, counting, 5)                                                                                        \
    X(type, state, counting, 6)                                                                                        \
    X(type, state, counting, 7)                                                                                        \
    X(type, state, counting, 8)
#define EACH_STATE(X, type)                                                                                            \
    X(type, STATE_NONE)                                                                                                \
    X(type, STATE_USUAL)                                                                                               \
    X(type, STATE_USUAL_MAXIMUM)                                                                                       \
    X(type, STATE_ANY)
#define EACH_TYPE(X) X(GD_F32) X(GD_BF16) X(GD_F16)

#define DEFINE_STATE(type, state) EACH_NUMBER_OF_LAGS(TAKE_ROWS, type, state, true)
#define DEFINE_TYPE(type) EACH_STATE(DEFINE_STATE, type) EACH_NUMBER_OF_LAGS(TAKE_ROWS, type, STATE_NONE, false)
EACH_TYPE(DEFINE_TYPE)

#define NAME(type, state, counting, n) take_rows_##type##_##state##_##counting##_##n,
#define NAME_STATE(type, state) [state] = {EACH_NUMBER_OF_LAGS(NAME, type, state, true)},
#define NAME_FIRST(type) [type] = {EACH_STATE(NAME_STATE, type)},
#define NAME_FURTHER(type) [type] = {EACH_NUMBER_OF_LAGS(NAME, type, STATE_NONE, false)},

static rows_taker *const first_pass[GD_F16 + 1][STATE_ANY + 1][LAGS_AT_ONCE + 1] = {EACH_TYPE(NAME_FIRST)};
static rows_taker *const further_pass[GD_F16 + 1][LAGS_AT_ONCE + 1] = {EACH_TYPE(NAME_FURTHER)};

// The one loop that serves every case.
static void take_rows_carefully(const struct pass *pass, const struct row *row, size_t first, size_t elems,
                                struct block_sums *sums) {
    struct manner how = pass->how;
    how.careful = true;
    if (how.state != STATE_NONE)
        how.state = STATE_ANY;
    take_rows(how, row, pass->step, &pass->step_vecs, first, elems, sums);
}

// Elements behind the last whole row, in a row of their own that is filled with zeros.
struct tail {
    float gradient[GD_LANES];
    float history[LAGS_AT_ONCE][GD_LANES];
    float root[GD_LANES], maximum[GD_LANES];
    float root_next[GD_LANES], maximum_next[GD_LANES];
};

static const float *copy_tail(float to[static GD_LANES], const void *from, size_t bytes) {
    memset(to, 0, GD_LANES * sizeof(*to)); // +0 in every type
    return memcpy(to, from, bytes);
}

static void take_tail(const struct pass *pass, rows_taker *take, size_t first, size_t elems, struct block_sums *sums) {
    struct tail tail __attribute__((aligned(64)));
    const void *history[LAGS_AT_ONCE];
    const struct row *row = &pass->row;
    size_t bytes = elems * gd_element_bytes(pass->how.type), skip = first * gd_element_bytes(pass->how.type);

    struct row padded = {.gradient = copy_tail(tail.gradient, (const uint8_t *)row->gradient + skip, bytes),
                         .history = history};
    for (uint32_t i = 0; i < pass->how.lags; i++)
        history[i] = copy_tail(tail.history[i], (const uint8_t *)pass->history[i] + skip, bytes);
    if (row->root) {
        padded.root = copy_tail(tail.root, row->root + first, elems * sizeof(float));
        padded.root_next = tail.root_next;
    }
    if (row->maximum) {
        padded.maximum = copy_tail(tail.maximum, row->maximum + first, elems * sizeof(float));
        padded.maximum_next = tail.maximum_next;
    }
    take(pass, &padded, 0, GD_LANES, sums);
    if (row->root)
        memcpy(row->root_next + first, tail.root_next, elems * sizeof(float));
    if (row->maximum)
        memcpy(row->maximum_next + first, tail.maximum_next, elems * sizeof(float));
}

static struct vec_sum no_sum(void) {
    struct vec_sum sum;
    for (size_t j = 0; j < ROW_VECS; j++)
        sum.lanes[j] = v_zero();
    return sum;
}

static struct vec_sum load_lanes(const float lanes[static GD_LANES]) {
    struct vec_sum sum;
    for (size_t j = 0; j < ROW_VECS; j++)
        sum.lanes[j] = v_load(lanes + j * VEC_LANES);
    return sum;
}

static void store_lanes(const struct vec_sum *sum, float lanes[static GD_LANES]) {
    for (size_t j = 0; j < ROW_VECS; j++)
        v_store(lanes + j * VEC_LANES, sum->lanes[j]);
}

static void add_lanes(bool first, const struct vec_sum *sum, double total[static GD_LANES]) {
    float lanes[GD_LANES];
    store_lanes(sum, lanes);
    flush_lanes(first, lanes, total);
}

static uint64_t count_lanes(const struct vec_sum *sum) {
    float lane[GD_LANES];

    store_lanes(sum, lane);
    for (size_t width = GD_LANES / 2; width > 0; width /= 2) {
        for (size_t i = 0; i < width; i++)
            lane[i] += lane[i + width]; // at most 1024 in all: exact
    }
    return (uint64_t)lane[0];
}

// One block, in lanes that start from 0 but for the extremes.
static void sum_block(const struct pass *pass, rows_taker *take, size_t first, size_t elems,
                      const struct chunk_sums *sums, struct block_sums *ret_block) {
    size_t whole = elems - elems % GD_LANES;

    ret_block->squared_norm = ret_block->active = ret_block->finite = no_sum();
    ret_block->A = ret_block->B = ret_block->C = ret_block->D = ret_block->relative_square = no_sum();
    for (uint32_t i = 0; i < pass->how.lags; i++)
        ret_block->dot[i] = no_sum();
    ret_block->max_abs = load_lanes(sums->max_abs);
    ret_block->step_size_min = load_lanes(sums->step_size_min);
    take(pass, &pass->row, first, whole, ret_block);
    if (whole < elems)
        take_tail(pass, take, first + whole, elems - whole, ret_block);
}

// Whether every element was finite: one that is not makes its lane's product infinite or NaN, and the lane stays so. A
// sum of finite products may overflow too; then the careful loop gives the same once more.
static bool is_whole(const struct pass *pass, const struct block_sums *block) {
    for (size_t j = 0; j < ROW_VECS; j++) {
        mask finite = is_finite_vec(block->squared_norm.lanes[j]); // of 0 in a pass that does not count
        for (uint32_t i = 0; i < pass->how.lags; i++)
            finite = m_and(finite, is_finite_vec(block->dot[i].lanes[j]));
        if (!m_all(finite))
            return false;
    }
    return true;
}

static void take_block(const struct pass *pass, rows_taker *take, size_t first, size_t elems, struct chunk_sums *sums) {
    struct block_sums block;
    uint64_t non_finite = 0;

    sum_block(pass, take, first, elems, sums, &block);
    if (!is_whole(pass, &block)) {
        sum_block(pass, take_rows_carefully, first, elems, sums, &block);
        non_finite = (elems + GD_LANES - 1) / GD_LANES * GD_LANES - count_lanes(&block.finite);
    }

    for (uint32_t i = 0; i < pass->how.lags; i++)
        add_lanes(first == 0, &block.dot[i], sums->dot[pass->lag[i]]);
    if (pass->row.root && pass->step->measured) {
        add_lanes(first == 0, &block.A, sums->A);
        add_lanes(first == 0, &block.B, sums->B);
        add_lanes(first == 0, &block.C, sums->C);
        add_lanes(first == 0, &block.D, sums->D);
        add_lanes(first == 0, &block.relative_square, sums->relative_square);
        store_lanes(&block.step_size_min, sums->step_size_min);
    }
    if (pass->how.counting) {
        add_lanes(first == 0, &block.squared_norm, sums->squared_norm);
        store_lanes(&block.max_abs, sums->max_abs);
        sums->non_finite += non_finite;
        sums->active += count_lanes(&block.active);
    }
}

static void run_pass(const struct pass *pass, size_t elems, struct chunk_sums *sums) {
    const struct manner *how = &pass->how;
    rows_taker *take =
        how->counting ? first_pass[how->type][how->state][how->lags] : further_pass[how->type][how->lags];
    for (size_t first = 0; first < elems; first += GD_FLUSH_ELEMS) {
        size_t left = elems - first;
        take_block(pass, take, first, left < GD_FLUSH_ELEMS ? left : GD_FLUSH_ELEMS, sums);
    }
}

static enum state_form form_of(const struct gd_chunk *chunk) {
    if (!chunk->root)
        return STATE_NONE;
    if (!is_usual(chunk->step))
        return STATE_ANY;
    return chunk->maximum ? STATE_USUAL_MAXIMUM : STATE_USUAL;
}

static void analyse(const struct gd_chunk *chunk, struct gd_step_sums *ret_sums) {
    struct chunk_sums sums;
    struct pass pass;
    uint32_t next = 0;

    assert_preconditions(chunk);
    chunk_sums_init(&sums, chunk);
    pass.row = (struct row){
        .gradient = chunk->gradient,
        .history = pass.history,
        .root = chunk->root,
        .maximum = chunk->maximum,
        .root_next = chunk->root_next,
        .maximum_next = chunk->maximum_next,
        .past_caches = chunk->past_caches,
    };
    pass.how = (struct manner){.type = chunk->type, .state = form_of(chunk), .counting = true};
    pass.step = chunk->step;
    if (chunk->root)
        pass.step_vecs = spread(chunk->step);
    do {
        pass.how.lags = 0;
        for (; next < chunk->lags && pass.how.lags < LAGS_AT_ONCE; next++) {
            if (!chunk->history[next])
                continue;
            pass.history[pass.how.lags] = chunk->history[next];
            pass.lag[pass.how.lags++] = next;
        }
        run_pass(&pass, chunk->elems, &sums);
        pass.how.counting = false; // what one pass is enough for
        pass.how.state = STATE_NONE;
        pass.row.root = pass.row.maximum = NULL;
    } while (next < chunk->lags);
    if (chunk->past_caches)
        v_fence();
    fill_step_sums(chunk, &sums, ret_sums);
}
