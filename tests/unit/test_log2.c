// Elements and effective steps counted by exponent, and the histogram that comes of it.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "element_values.h"
#include "kernels/step_sizes.h"
#include "log2_counts.h"
#include "log2_histogram.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

// ---- The histogram --------------------------------------------------------------------------------------------------

Test(log2, bins_reach_up_to_the_largest_exponent) {
    for (int top = 1; top <= 254; top++) {
        uint64_t counts[GD_EXPONENTS] = {0};
        struct gd_histogram_bin bins[GD_HISTOGRAM_BINS];
        counts[top] = 5;
        counts[GD_EXPONENT_SMALL] = counts[GD_EXPONENT_SPECIAL] = 1000;
        cr_assert(gd_log2_histogram(counts, bins));
        for (int i = 0; i < GD_HISTOGRAM_BINS; i++) {
            cr_expect_eq(bins[i].left, top - 127 - 29 + i);
            cr_expect_eq(bins[i].right, bins[i].left + 1);
            cr_expect_eq(bins[i].count, i == 29 ? 5 : 0, "top %d, bin %d", top, i);
        }
    }
}

Test(log2, what_is_smaller_is_in_the_first_bin) {
    uint64_t counts[GD_EXPONENTS] = {0};
    struct gd_histogram_bin bins[GD_HISTOGRAM_BINS];
    for (int i = 1; i <= 200; i++)
        counts[i] = (uint64_t)i;
    cr_assert(gd_log2_histogram(counts, bins));
    cr_expect_eq(bins[0].count, 171 * 172 / 2);
    for (int i = 1; i < GD_HISTOGRAM_BINS; i++)
        cr_expect_eq(bins[i].count, 171 + i);
}

Test(log2, nothing_to_show_is_no_histogram) {
    uint64_t counts[GD_EXPONENTS] = {[GD_EXPONENT_SMALL] = 7, [GD_EXPONENT_SPECIAL] = 7};
    struct gd_histogram_bin bins[GD_HISTOGRAM_BINS], before[GD_HISTOGRAM_BINS];
    memset(bins, 0x5a, sizeof(bins));
    memcpy(before, bins, sizeof(bins));
    cr_expect_not(gd_log2_histogram(counts, bins));
    cr_expect_arr_eq(bins, before, sizeof(bins));
}

// ---- Effective steps ------------------------------------------------------------------------------------------------

enum { ELEMS = GD_CHUNK_ELEMS };

static float gradient[ELEMS];
static float root[ELEMS] __attribute__((aligned(64))), root_next[ELEMS] __attribute__((aligned(64)));
static float maximum[ELEMS] __attribute__((aligned(64))), maximum_next[ELEMS] __attribute__((aligned(64)));

static struct gd_second_moment_step adam = {
    .gain = 0.1f,
    .keep = 1.0f,
    .max_scale = 1.0f,
    .measured = true,
    .has_before = true,
    .numerator = 1e-3f,
    .scale = 1.5f,
    .scale_before = 1.75f,
    .scale_fall = 0.25f,
    .outside = 1e-4f,
    .outside_before = 1e-4f,
    .relative_floor = 1e-16f,
};

static struct gd_chunk analysed_chunk(size_t elems, const struct gd_second_moment_step *step, bool has_maximum) {
    struct gd_chunk chunk = {
        .elems = elems,
        .type = GD_F32,
        .gradient = gradient,
        .step = step,
        .root = root,
        .root_next = root_next,
        .maximum = has_maximum ? maximum : NULL,
        .maximum_next = has_maximum ? maximum_next : NULL,
    };
    struct gd_step_sums sums;
    uint64_t state = 77;
    for (size_t i = 0; i < elems; i++) {
        gradient[i] = ldexpf(random_gradient(&state), (int)(next_random(&state) % 30) - 20);
        root[i] = i % 5 == 0 ? 0.0f : fabsf(gradient[i]) * 0.75f;
        maximum[i] = i % 3 == 0 ? 2.0f * root[i] : root[i];
        if (i % 7 == 0)
            gradient[i] = i % 2 ? 0.0f : -0.0f;
        if (i % 31 == 0)
            gradient[i] = i % 2 ? NAN : INFINITY;
    }
    gd_kernels_scalar.analyse(&chunk, &sums);
    return chunk;
}

static void expect_step_sizes(struct gd_second_moment_step step, bool has_maximum, const char *what) {
    enum { FIRST = 3, N = 1500 };
    float sizes[N];
    double sum = 0.0;
    struct gd_step_sums sums;
    struct gd_chunk chunk = analysed_chunk(FIRST + N, &step, has_maximum);
    gd_step_sizes(&chunk, FIRST, N, sizes);
    for (size_t i = 0; i < N; i++) {
        double w = (double)(has_maximum ? maximum_next : root_next)[FIRST + i], x = w * (double)step.scale;
        double expected = (double)step.numerator / (sqrt(x * x + (double)step.inside) + (double)step.outside);
        float g = gradient[FIRST + i];
        if (!isfinite(g) || g == 0.0f)
            expected = 0.0;
        cr_assert(fabs((double)sizes[i] - expected) <= 4e-7 * fabs(expected), "%s, element %zu: %g, not %g", what, i,
                  (double)sizes[i], expected);
    }
    // their sum is what the kernels call A
    gd_step_sizes(&chunk, 0, N, sizes);
    for (size_t i = 0; i < N; i++)
        sum += (double)sizes[i];
    chunk.elems = N;
    gd_kernels_scalar.analyse(&chunk, &sums);
    cr_expect(fabs(sums.A - sum) <= 1e-5 * fabs(sum), "%s: A is %g, their sum %g", what, sums.A, sum);
}

Test(log2, step_sizes_are_numerator_by_root_and_eps) {
    struct gd_second_moment_step step = adam;
    expect_step_sizes(step, false, "adam");
    expect_step_sizes(step, true, "amsgrad");
    step.inside = step.inside_before = 1e-3f;
    expect_step_sizes(step, false, "eps_root");
    expect_step_sizes(step, true, "eps_root of the maximum");
    step.outside = step.outside_before = 0.0f;
    expect_step_sizes(step, false, "eps 0");
    step.numerator = -1e-3f;
    expect_step_sizes(step, false, "a negative rate");
}

// Whether an element is active depends on its value, of whatever type.
Test(log2, step_sizes_of_halves) {
    static uint16_t halves[1 << 15];
    static float sizes[1 << 15];
    for (size_t i = 0; i < ARRAY_SIZE(root_next); i++)
        root_next[i] = 1.0f;
    for (enum gd_element_type type = GD_BF16; type <= GD_F16; type++) {
        struct gd_chunk chunk = {
            .elems = 1 << 15, .type = type, .gradient = halves, .step = &adam, .root = root, .root_next = root_next};
        for (uint32_t i = 0; i < 1 << 15; i++)
            halves[i] = (uint16_t)(2 * i + 1);
        halves[0] = 0x0000, halves[1] = 0x8000;
        gd_step_sizes(&chunk, 0, 1 << 15, sizes);
        for (size_t i = 0; i < 1 << 15; i++) {
            double g = element_value(type, halves[i]);
            cr_assert_eq(sizes[i] > 0.0f, isfinite(g) && g != 0.0, "type %d, %x", (int)type, halves[i]);
        }
    }
}

// ---- Counts ---------------------------------------------------------------------------------------------------------

static struct gd_log2_tally tally;

static void count_one(enum gd_log2_kind kind, float value, uint64_t weight) {
    tally.count[kind][gd_exponent_of(value)] += weight;
}

// What the tally must be: each element, or of a sampled group the first of eight blocks for all.
static void count_by_hand(const struct gd_chunk *chunk, bool sampled) {
    static float sizes[ELEMS];
    size_t end = sampled ? chunk->elems / 8192 * 8192 : 0;
    memset(&tally, 0, sizeof(tally));
    if (chunk->root)
        gd_step_sizes(chunk, 0, chunk->elems, sizes);
    for (size_t i = 0; i < chunk->elems; i++) {
        uint64_t weight = i >= end ? 1 : i / 1024 % 8 == 0 ? 8 : 0;
        count_one(GD_LOG2_GRADIENT, gradient[i], weight);
        if (chunk->root)
            count_one(GD_LOG2_STEP_SIZE, sizes[i], weight);
    }
}

Test(log2, a_chunk_is_counted_or_sampled) {
    static const size_t lengths[] = {1, 511, 512, 1023, 1024, 1025, 8191, 8192, 8193, 16384 + 3000, ELEMS - 1, ELEMS};
    static const uint64_t numels[] = {1 << 16, (1 << 20) - 1, 1 << 20, 1 << 24};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct gd_chunk chunk = analysed_chunk(lengths[i], &adam, true);
        for (size_t j = 0; j < ARRAY_SIZE(numels); j++) {
            static struct gd_log2_tally counted;
            memset(&counted, 0, sizeof(counted));
            count_by_hand(&chunk, numels[j] >= 1 << 20);
            gd_log2_tally_add_chunk(&counted, &chunk, numels[j]);
            cr_assert_arr_eq(&counted, &tally, sizeof(tally), "%zu elements of %lu", lengths[i],
                             (unsigned long)numels[j]);
        }
    }
}

Test(log2, without_a_measured_state_the_gradient_alone_is_counted) {
    static struct gd_log2_tally counted;
    struct gd_second_moment_step silent = adam;
    struct gd_chunk chunk = analysed_chunk(5000, &silent, false);
    silent.measured = false;
    gd_log2_tally_add_chunk(&counted, &chunk, 5000);
    chunk.root = NULL, chunk.root_next = NULL;
    gd_log2_tally_add_chunk(&counted, &chunk, 5000);
    count_by_hand(&chunk, false);
    for (size_t i = 0; i < GD_EXPONENTS; i++) {
        cr_expect_eq(counted.count[GD_LOG2_GRADIENT][i], 2 * tally.count[GD_LOG2_GRADIENT][i]);
        cr_expect_eq(counted.count[GD_LOG2_STEP_SIZE][i], 0);
    }
}

Test(log2, threads_counts_add_up) {
    static struct gd_log2_counts counts;
    static struct gd_log2_tally parts[3];
    uint64_t loaded[GD_EXPONENTS];
    memset(&counts, 0xff, sizeof(counts));
    gd_log2_counts_clear(&counts);
    for (uint64_t part = 0; part < 3; part++) {
        for (uint64_t i = 0; i < GD_EXPONENTS; i++)
            for (uint64_t kind = 0; kind < GD_LOG2_KINDS; kind++)
                parts[part].count[kind][i] = (i << 33) + part + kind;
        gd_log2_counts_merge(&counts, &parts[part]);
    }
    gd_log2_counts_add(&counts, GD_LOG2_STEP_SIZE, -0.75f, 11);
    for (enum gd_log2_kind kind = 0; kind < GD_LOG2_KINDS; kind++) {
        gd_log2_counts_load(&counts, kind, loaded);
        for (uint64_t i = 0; i < GD_EXPONENTS; i++)
            cr_expect_eq(loaded[i], 3 * (i << 33) + 3 + 3 * kind + (kind == GD_LOG2_STEP_SIZE && i == 126 ? 11 : 0));
    }
}
