// Every kernel of this build that the machine can run, against the reference: to the last bit.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernel_cases.h"

enum {
    LENGTH_MAX = 300,
    FORMS_EACH = 4, // a length meets one rule in so many; neighbours meet the others
    CHUNK_CASES = 40,
};

static bool same_double(double a, double b) {
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static bool same_float(float a, float b) {
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static bool same_sums(const struct gd_step_sums *a, const struct gd_step_sums *b) {
    bool same = a->elements == b->elements && a->zeros == b->zeros && a->non_finite == b->non_finite &&
                a->active == b->active && same_float(a->max_abs, b->max_abs) &&
                same_double(a->squared_norm, b->squared_norm) && same_double(a->A, b->A) && same_double(a->B, b->B) &&
                same_double(a->C, b->C) && same_double(a->D, b->D) &&
                same_double(a->relative_square, b->relative_square) && same_float(a->step_size_min, b->step_size_min);
    for (uint32_t i = 0; i < GD_LAG_MAX; i++)
        same = same && same_double(a->dot[i], b->dot[i]);
    return same;
}

static bool same_floats(const float *a, const float *b, size_t elems) {
    return !a || memcmp(a, b, elems * sizeof(float)) == 0;
}

// Runs one case on the reference and on the kernel, each with buffers of its own.
static void expect_same(const struct gd_kernels *kernels, uint64_t seed, enum gd_element_type type, size_t elems,
                        uint32_t lags, const struct rule_form *form, enum distribution distribution) {
    struct kernel_case *reference = kernel_case_new(seed, type, elems, lags, form, distribution);
    struct kernel_case *tested = kernel_case_new(seed, type, elems, lags, form, distribution);
    struct gd_step_sums expected, sums;

    gd_kernels_scalar.analyse(&reference->chunk, &expected);
    kernels->analyse(&tested->chunk, &sums);
    cr_assert(same_sums(&sums, &expected), "%s: %s: other sums", kernels->name, kernel_case_text(tested));
    cr_assert(same_floats(tested->chunk.root_next, reference->chunk.root_next, elems) &&
                  same_floats(tested->chunk.maximum_next, reference->chunk.maximum_next, elems),
              "%s: %s: another state", kernels->name, kernel_case_text(tested));
    cr_assert(kernel_case_is_intact(tested), "%s: %s: wrote elsewhere", kernels->name, kernel_case_text(tested));
    kernel_case_free(reference);
    kernel_case_free(tested);
}

// Calls `check` for each variant but the reference. At least this build's must be there and, where they are supported,
// run.
static void for_each_variant(void (*check)(const struct gd_kernels *kernels)) {
    bool supported;
    const struct gd_kernels *kernels;
    for (size_t i = 0; (kernels = gd_kernels_variant(i, &supported)); i++) {
        if (kernels == &gd_kernels_scalar)
            continue;
        if (supported)
            check(kernels);
        else
            fprintf(stderr, "%s: not supported by this machine\n", kernels->name);
    }
}

static void check_lengths(const struct gd_kernels *kernels) {
    for (size_t elems = 0; elems <= LENGTH_MAX; elems++)
        for (size_t form = elems % FORMS_EACH; form < n_rule_forms; form += FORMS_EACH)
            for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
                uint64_t seed = elems * 64 + form * 4 + type;
                expect_same(kernels, seed, type, elems, (uint32_t)(seed % (GD_LAG_MAX + 1)), &rule_forms[form],
                            (enum distribution)(seed % DISTRIBUTIONS));
            }
}

Test(kernels_variants, every_length_to_300) {
    for_each_variant(check_lengths);
}

static void check_lags(const struct gd_kernels *kernels) {
    for (uint32_t lags = 0; lags <= GD_LAG_MAX; lags++)
        for (enum distribution distribution = 0; distribution < DISTRIBUTIONS; distribution++)
            for (enum gd_element_type type = GD_F32; type <= GD_F16; type++)
                expect_same(kernels, 1000 + lags, type, 2 * GD_FLUSH_ELEMS + 17 * lags, lags,
                            &rule_forms[lags % n_rule_forms], distribution);
}

Test(kernels_variants, every_number_of_lags_with_every_distribution) {
    for_each_variant(check_lags);
}

static void check_chunks(const struct gd_kernels *kernels) {
    uint64_t random = 7;
    for (int i = 0; i < CHUNK_CASES; i++) {
        size_t elems = GD_CHUNK_ELEMS - random_below(&random, 3) * random_below(&random, 5000);
        expect_same(kernels, random, GD_F32 + random_below(&random, 3), elems, random_below(&random, 10),
                    &rule_forms[random_below(&random, (uint32_t)n_rule_forms)],
                    (enum distribution)random_below(&random, DISTRIBUTIONS));
    }
}

Test(kernels_variants, long_chunks) {
    for_each_variant(check_chunks);
}

Test(kernels_variants, the_reference_comes_last_and_is_always_supported) {
    bool supported = false;
    size_t n = 0;
    const struct gd_kernels *last = NULL, *kernels;
    while ((kernels = gd_kernels_variant(n, &supported))) {
        last = kernels;
        n++;
    }
    cr_assert(last == &gd_kernels_scalar && supported);
    const struct gd_kernels *selected;
    for (size_t i = 0; i < n; i++) {
        kernels = gd_kernels_variant(i, &supported);
        cr_expect_eq(gd_kernels_select(kernels->name, &selected), supported ? 0 : -EINVAL, "%s", kernels->name);
        cr_expect(!supported || selected == kernels, "%s", kernels->name);
    }
    cr_expect_eq(gd_kernels_select("avx1024", &selected), -EINVAL);
}
