#include "step_sums.h"

#include <criterion/criterion.h>
#include <math.h>

// Every field different and exact in sums, so that a merge that drops or swaps one shows.
static struct gd_step_sums example(uint32_t factor) {
    struct gd_step_sums sums;
    double scale = (double)factor;

    gd_step_sums_init(&sums);
    sums.elements = 100 * factor;
    sums.zeros = 10 * factor;
    sums.non_finite = 3 * factor;
    sums.max_abs = 1.5f * (float)factor;
    sums.squared_norm = 2.5 * scale;
    for (uint32_t i = 0; i < GD_LAG_MAX; i++) {
        sums.dot[i] = (1000.0 + i) * scale;
        sums.squared_norm_now[i] = (2000.0 + i) * scale;
        sums.squared_norm_past[i] = (3000.0 + i) * scale;
    }
    sums.active = 87 * factor;
    sums.A = 4.5 * scale;
    sums.B = 5.5 * scale;
    sums.C = 6.5 * scale;
    sums.D = 7.5 * scale;
    sums.relative_square = 8.5 * scale;
    sums.step_size_min = 0.25f * (float)factor;
    sums.first_non_finite_group = 10 * factor;
    return sums;
}

static void expect_equal(const struct gd_step_sums *a, const struct gd_step_sums *b) {
    cr_expect_eq(a->elements, b->elements);
    cr_expect_eq(a->zeros, b->zeros);
    cr_expect_eq(a->non_finite, b->non_finite);
    cr_expect_eq(a->max_abs, b->max_abs);
    cr_expect_eq(a->squared_norm, b->squared_norm);
    for (uint32_t i = 0; i < GD_LAG_MAX; i++) {
        cr_expect_eq(a->dot[i], b->dot[i], "lag %u", i + 1);
        cr_expect_eq(a->squared_norm_now[i], b->squared_norm_now[i], "lag %u", i + 1);
        cr_expect_eq(a->squared_norm_past[i], b->squared_norm_past[i], "lag %u", i + 1);
    }
    cr_expect_eq(a->active, b->active);
    cr_expect_eq(a->A, b->A);
    cr_expect_eq(a->B, b->B);
    cr_expect_eq(a->C, b->C);
    cr_expect_eq(a->D, b->D);
    cr_expect_eq(a->relative_square, b->relative_square);
    cr_expect_eq(a->step_size_min, b->step_size_min);
    cr_expect_eq(a->first_non_finite_group, b->first_non_finite_group);
}

Test(step_sums, merging_into_the_neutral_element_copies) {
    struct gd_step_sums part = example(3);
    struct gd_step_sums sums;

    gd_step_sums_init(&sums);
    gd_step_sums_merge(&sums, &part, GD_LAG_MAX);
    expect_equal(&sums, &part);
}

Test(step_sums, merging_the_neutral_element_changes_nothing) {
    struct gd_step_sums sums = example(3);
    struct gd_step_sums before = sums;
    struct gd_step_sums neutral;

    gd_step_sums_init(&neutral);
    gd_step_sums_merge(&sums, &neutral, GD_LAG_MAX);
    expect_equal(&sums, &before);
}

Test(step_sums, merging_adds_every_sum_and_count) {
    struct gd_step_sums sums = example(1);
    struct gd_step_sums part = example(2);
    struct gd_step_sums expected = example(3);

    expected.max_abs = part.max_abs;
    expected.step_size_min = sums.step_size_min;
    expected.first_non_finite_group = sums.first_non_finite_group;
    gd_step_sums_merge(&sums, &part, GD_LAG_MAX);
    expect_equal(&sums, &expected);
}

Test(step_sums, extremes_are_kept_from_either_side) {
    const struct {
        float a, b, max, min;
    } cases[] = {
        {1.0f, 2.0f, 2.0f, 1.0f}, {2.0f, 1.0f, 2.0f, 1.0f},         {3.0f, 3.0f, 3.0f, 3.0f},
        {0.0f, 5.0f, 5.0f, 0.0f}, {INFINITY, 1.0f, INFINITY, 1.0f},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gd_step_sums sums = example(1);
        struct gd_step_sums part = example(1);

        sums.max_abs = sums.step_size_min = cases[i].a;
        part.max_abs = part.step_size_min = cases[i].b;
        gd_step_sums_merge(&sums, &part, GD_LAG_MAX);
        cr_expect_eq(sums.max_abs, cases[i].max, "case %zu", i);
        cr_expect_eq(sums.step_size_min, cases[i].min, "case %zu", i);
    }
}

Test(step_sums, the_first_group_with_a_non_finite_element_is_kept_from_either_side) {
    const struct {
        uint32_t a, b, first;
    } cases[] = {
        {UINT32_MAX, UINT32_MAX, UINT32_MAX}, {UINT32_MAX, 7, 7}, {7, UINT32_MAX, 7}, {0, 7, 0}, {7, 0, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gd_step_sums sums = example(1);
        struct gd_step_sums part = example(1);

        sums.first_non_finite_group = cases[i].a;
        part.first_non_finite_group = cases[i].b;
        gd_step_sums_merge(&sums, &part, GD_LAG_MAX);
        cr_expect_eq(sums.first_non_finite_group, cases[i].first, "case %zu", i);
    }
}

Test(step_sums, lags_beyond_max_lag_are_not_touched) {
    for (uint32_t max_lag = 0; max_lag <= GD_LAG_MAX; max_lag++) {
        struct gd_step_sums sums = example(1);
        struct gd_step_sums before = sums;
        struct gd_step_sums part = example(2);

        gd_step_sums_merge(&sums, &part, max_lag);
        for (uint32_t i = 0; i < GD_LAG_MAX; i++) {
            double share = i < max_lag ? 3.0 : 1.0;
            cr_expect_eq(sums.dot[i], share * before.dot[i], "max_lag %u, lag %u", max_lag, i + 1);
            cr_expect_eq(sums.squared_norm_now[i], share * before.squared_norm_now[i]);
            cr_expect_eq(sums.squared_norm_past[i], share * before.squared_norm_past[i]);
        }
    }
}

// example() holds small multiples of 1/4, whose sums are exact: so every field must be associative here.
Test(step_sums, merging_is_associative) {
    struct gd_step_sums left = example(1);
    struct gd_step_sums right = example(1);
    const struct gd_step_sums middle = example(2);
    const struct gd_step_sums last = example(5);
    struct gd_step_sums grouped = middle;

    gd_step_sums_merge(&left, &middle, GD_LAG_MAX);
    gd_step_sums_merge(&left, &last, GD_LAG_MAX);

    gd_step_sums_merge(&grouped, &last, GD_LAG_MAX);
    gd_step_sums_merge(&right, &grouped, GD_LAG_MAX);
    expect_equal(&left, &right);
}

Test(step_sums, counts_beyond_32_bits_stay_exact) {
    struct gd_step_sums sums = example(1);
    struct gd_step_sums part = example(1);

    sums.elements = UINT64_C(1) << 40;
    part.elements = (UINT64_C(1) << 40) + 1;
    gd_step_sums_merge(&sums, &part, GD_LAG_MAX);
    cr_expect_eq(sums.elements, (UINT64_C(1) << 41) + 1);
}
