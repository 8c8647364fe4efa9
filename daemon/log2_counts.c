#include "log2_counts.h"

#include "kernels/step_sizes.h"

enum { SPACE_ELEMS = 8 * GD_FLUSH_ELEMS };

static size_t lesser(size_t a, size_t b) {
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

// Counts elements from `first` to `end` of a chunk, one block in `every`.
static void count_range(const struct gd_chunk *chunk, size_t first, size_t end, size_t every,
                        struct gd_log2_tally *found) {
    const uint8_t *elements = (const uint8_t *)chunk->gradient + first * gd_element_bytes(chunk->type);
    gd_exponents_count(elements, chunk->type, end - first, every, found->count[GD_LOG2_GRADIENT]);
    if (chunk->root && chunk->step->measured)
        count_step_sizes(chunk, first, end, every, found->count[GD_LOG2_STEP_SIZE]);
}

static void count_sampled(const struct gd_chunk *chunk, size_t end, struct gd_log2_tally *tally) {
    struct gd_log2_tally found = {.count = {{0}}};
    count_range(chunk, 0, end, GD_LOG2_EVERY, &found);
    for (size_t kind = 0; kind < GD_LOG2_KINDS; kind++)
        for (size_t i = 0; i < GD_EXPONENTS; i++)
            tally->count[kind][i] += GD_LOG2_EVERY * found.count[kind][i];
}

void gd_log2_tally_add_chunk(struct gd_log2_tally *tally, const struct gd_chunk *chunk, uint64_t numel) {
    size_t sampled = numel < GD_LOG2_SAMPLED_NUMEL ? 0 : chunk->elems - chunk->elems % (GD_LOG2_EVERY * GD_FLUSH_ELEMS);
    if (sampled > 0)
        count_sampled(chunk, sampled, tally);
    if (sampled < chunk->elems)
        count_range(chunk, sampled, chunk->elems, 1, tally);
}

void gd_log2_counts_clear(struct gd_log2_counts *counts) {
    for (size_t kind = 0; kind < GD_LOG2_KINDS; kind++)
        for (size_t i = 0; i < GD_EXPONENTS; i++)
            atomic_store_explicit(&counts->count[kind][i], 0, memory_order_relaxed);
}

static void add(struct gd_log2_counts *counts, size_t kind, size_t exponent, uint64_t found) {
    if (found > 0)
        atomic_fetch_add_explicit(&counts->count[kind][exponent], found, memory_order_relaxed);
}

void gd_log2_counts_merge(struct gd_log2_counts *counts, const struct gd_log2_tally *tally) {
    for (size_t kind = 0; kind < GD_LOG2_KINDS; kind++)
        for (size_t i = 0; i < GD_EXPONENTS; i++)
            add(counts, kind, i, tally->count[kind][i]);
}

void gd_log2_counts_add(struct gd_log2_counts *counts, enum gd_log2_kind kind, float value, uint64_t elements) {
    add(counts, kind, gd_exponent_of(value), elements);
}

void gd_log2_counts_load(const struct gd_log2_counts *counts, enum gd_log2_kind kind,
                         uint64_t ret_counts[static GD_EXPONENTS]) {
    for (size_t i = 0; i < GD_EXPONENTS; i++)
        ret_counts[i] = atomic_load_explicit(&counts->count[kind][i], memory_order_relaxed);
}
