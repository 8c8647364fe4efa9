#include "log2_counts.h"

#include "kernels/step_sizes.h"

enum { SPACE_ELEMS = 8 * GD_FLUSH_ELEMS };

static void add(struct gd_log2_counts *counts, enum gd_log2_kind kind, const uint64_t found[static GD_EXPONENTS],
                uint64_t weight) {
    for (size_t i = 0; i < GD_EXPONENTS; i++)
        if (found[i] > 0)
            atomic_fetch_add_explicit(&counts->count[kind][i], weight * found[i], memory_order_relaxed);
}

void gd_log2_counts_clear(struct gd_log2_counts *counts) {
    for (size_t kind = 0; kind < GD_LOG2_KINDS; kind++)
        for (size_t i = 0; i < GD_EXPONENTS; i++)
            atomic_store_explicit(&counts->count[kind][i], 0, memory_order_relaxed);
}

static uint64_t lesser(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

// Of the same blocks as gd_exponents_count() counts of the elements.
static void count_step_sizes(const struct gd_chunk *chunk, size_t first, size_t end, size_t every,
                             uint64_t found[static GD_EXPONENTS]) {
    float space[SPACE_ELEMS];
    size_t used = 0;
    for (size_t at = first; at < end; at += every * GD_FLUSH_ELEMS) {
        size_t elems = lesser(end - at, GD_FLUSH_ELEMS);
        gd_step_sizes(chunk, at, elems, space + used);
        used += elems;
        if (used > SPACE_ELEMS - GD_FLUSH_ELEMS) {
            gd_exponents_count(space, GD_F32, used, 1, found);
            used = 0;
        }
    }
    gd_exponents_count(space, GD_F32, used, 1, found);
}

// Elements from `first` to `end` of a chunk, one block in `every`.
static void add_range(struct gd_log2_counts *counts, const struct gd_chunk *chunk, size_t first, size_t end,
                      size_t every) {
    uint64_t found[GD_LOG2_KINDS][GD_EXPONENTS] = {{0}};
    if (first == end)
        return;
    gd_exponents_count((const uint8_t *)chunk->gradient + first * gd_element_bytes(chunk->type), chunk->type,
                       end - first, every, found[GD_LOG2_GRADIENT]);
    add(counts, GD_LOG2_GRADIENT, found[GD_LOG2_GRADIENT], every);
    if (!chunk->root || !chunk->step->measured)
        return;
    count_step_sizes(chunk, first, end, every, found[GD_LOG2_STEP_SIZE]);
    add(counts, GD_LOG2_STEP_SIZE, found[GD_LOG2_STEP_SIZE], every);
}

void gd_log2_counts_add_chunk(struct gd_log2_counts *counts, const struct gd_chunk *chunk, uint64_t numel) {
    size_t sampled = numel < GD_LOG2_SAMPLED_NUMEL ? 0 : chunk->elems - chunk->elems % (GD_LOG2_EVERY * GD_FLUSH_ELEMS);
    add_range(counts, chunk, 0, sampled, GD_LOG2_EVERY);
    add_range(counts, chunk, sampled, chunk->elems, 1);
}

void gd_log2_counts_add(struct gd_log2_counts *counts, enum gd_log2_kind kind, float value, uint64_t elements) {
    uint64_t found[GD_EXPONENTS] = {0};
    gd_exponents_count(&value, GD_F32, 1, 1, found);
    add(counts, kind, found, elements);
}

void gd_log2_counts_load(const struct gd_log2_counts *counts, enum gd_log2_kind kind,
                         uint64_t ret_counts[static GD_EXPONENTS]) {
    for (size_t i = 0; i < GD_EXPONENTS; i++)
        ret_counts[i] = atomic_load_explicit(&counts->count[kind][i], memory_order_relaxed);
}
