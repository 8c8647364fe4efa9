// The Adam family's totals, slopes and oscillation on series with known values, and its counting of steps.
#include "diagnostics/adam.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

// Adds one step of the given increments.
static struct gd_values add(struct gd_adam_state *state, double A, double B, double C) {
    const struct gd_adam_step step = {.measured = true};
    struct gd_values values = {0};
    struct gd_step_sums sums;

    gd_step_sums_init(&sums);
    sums.elements = sums.active = 1;
    sums.step_size_min = 1.0f;
    sums.A = A, sums.B = B, sums.C = C, sums.D = 2.0 * C;
    gd_adam_end_step(state, &step, &sums, &values);
    return values;
}

Test(adam_totals, slopes_and_oscillation_begin_at_16_steps) {
    struct gd_adam_state state = {0};
    for (uint64_t n = 1; n <= 40; n++) {
        struct gd_values values = add(&state, 1.0, 0.5, 0.25);
        cr_expect_eq(gd_values_has(&values, GD_TAG_SLOPE_B_OVER_A), n >= 16, "n %" PRIu64, n);
        cr_expect_eq(gd_values_has(&values, GD_TAG_SLOPE_C_OVER_A), n >= 16, "n %" PRIu64, n);
        cr_expect_eq(gd_values_has(&values, GD_TAG_OSCILLATION), n >= 16, "n %" PRIu64, n);
        cr_expect_eq(values.value[GD_TAG_B_OVER_A], 0.5);
        cr_expect_eq(values.value[GD_TAG_C_OVER_A], 0.25);
        cr_expect_eq(values.value[GD_TAG_A], (double)n);
        cr_expect_eq(values.value[GD_TAG_D], 0.5 * (double)n);
        if (n >= 16) {
            cr_expect_eq(values.value[GD_TAG_SLOPE_B_OVER_A], 0.0, "n %" PRIu64, n);
            cr_expect_eq(values.value[GD_TAG_OSCILLATION], 0.25, "n %" PRIu64, n);
        }
    }
}

Test(adam_totals, a_ratio_without_oscillation_has_no_slope) {
    struct gd_adam_state state = {0};
    struct gd_values values = {0};
    for (int n = 1; n <= 100; n++)
        values = add(&state, 1.0, 1.0, 0.0);
    cr_expect_not(gd_values_has(&values, GD_TAG_SLOPE_C_OVER_A));
    cr_expect(gd_values_has(&values, GD_TAG_SLOPE_B_OVER_A));
    cr_expect(gd_values_has(&values, GD_TAG_C_OVER_A));
    cr_expect_eq(values.value[GD_TAG_OSCILLATION], 0.0);
}

Test(adam_totals, a_run_without_any_step_size_has_no_ratios) {
    struct gd_adam_state state = {0};
    struct gd_values values = {0};
    for (int n = 1; n <= 20; n++)
        values = add(&state, 0.0, 0.0, 0.0);
    const enum gd_tag ratios[] = {GD_TAG_B_OVER_A, GD_TAG_C_OVER_A, GD_TAG_SLOPE_B_OVER_A, GD_TAG_SLOPE_C_OVER_A,
                                  GD_TAG_OSCILLATION};
    for (size_t i = 0; i < ARRAY_SIZE(ratios); i++)
        cr_expect_not(gd_values_has(&values, ratios[i]), "tag %d", (int)ratios[i]);
    cr_expect(gd_values_has(&values, GD_TAG_A));
}

// The grid's definition: A, B and C are kept at n = 2^j (8 + i), i = 0..7, and at every n below 8.
static bool is_kept(uint64_t n) {
    while (n >= 16 && n % 2 == 0)
        n /= 2;
    return n < 16;
}

// How far kept points lie apart around n.
static uint64_t spacing_at(uint64_t n) {
    uint64_t spacing = 1;
    while (n / spacing >= 16)
        spacing *= 2;
    return spacing;
}

// A series at n / 2, linear between the kept points on both sides.
static double at_half(const double *series, uint64_t n) {
    uint64_t spacing = spacing_at(n / 2);
    uint64_t low = n / 2 / spacing * spacing;
    double part = ((double)n / 2.0 - (double)low) / (double)spacing;
    return part == 0.0 ? series[low] : series[low] * (1.0 - part) + series[low + spacing] * part;
}

Test(adam_totals, the_tests_own_grid_has_all_kept_points_and_no_other) {
    for (uint64_t n = 1; n < 5000; n++)
        cr_assert_eq(n % spacing_at(n) == 0, is_kept(n), "n %" PRIu64, n);
}

static void expect_near(double actual, double expected, const char *what, uint64_t n) {
    cr_assert(fabs(actual - expected) <= 1e-9, "n %" PRIu64 ": %s is %.17g, not %.17g", n, what, actual, expected);
}

// A(n) = n, B(n) = sqrt(n), C(n) = n^(1/4): slopes near -1/2 and -3/4, and exactly what linear interpolation gives.
Test(adam_totals, slopes_follow_the_grid_for_a_million_steps) {
    enum { N = 1 << 20 };
    double *A = calloc(N + 1, sizeof(*A)), *B = calloc(N + 1, sizeof(*B)), *C = calloc(N + 1, sizeof(*C));
    struct gd_adam_state state = {0};
    cr_assert(A && B && C);

    for (uint64_t n = 1; n <= N; n++) {
        double root = sqrt((double)n), before = sqrt((double)(n - 1));
        struct gd_values values = add(&state, 1.0, root - before, sqrt(root) - sqrt(before));
        A[n] = state.A, B[n] = state.B, C[n] = state.C;
        if (n < 16)
            continue;
        double half_A = at_half(A, n), half_B = at_half(B, n), half_C = at_half(C, n);
        expect_near(values.value[GD_TAG_SLOPE_B_OVER_A], log2(B[n] / A[n]) - log2(half_B / half_A), "slope of B/A", n);
        expect_near(values.value[GD_TAG_SLOPE_C_OVER_A], log2(C[n] / A[n]) - log2(half_C / half_A), "slope of C/A", n);
        expect_near(values.value[GD_TAG_OSCILLATION], (C[n] - half_C) / (A[n] - half_A), "oscillation", n);
        cr_assert(fabs(values.value[GD_TAG_SLOPE_B_OVER_A] + 0.5) < 2e-3, "n %" PRIu64, n);
        cr_assert(fabs(values.value[GD_TAG_SLOPE_C_OVER_A] + 0.75) < 2e-3, "n %" PRIu64, n);
        if (n % 2 == 0 && is_kept(n / 2)) {
            expect_near(values.value[GD_TAG_SLOPE_B_OVER_A], -0.5, "slope of B/A on the grid", n);
            expect_near(values.value[GD_TAG_SLOPE_C_OVER_A], -0.75, "slope of C/A on the grid", n);
        }
    }
    free(A);
    free(B);
    free(C);
}

Test(adam_totals, odd_steps_are_interpolated_linearly) {
    struct gd_adam_state state = {0};
    struct gd_values values = {0};
    for (int n = 1; n <= 17; n++)
        values = add(&state, 1.0, n <= 8 ? 1.0 : 3.0, 1.0);
    // B(8) = 8, B(9) = 11, B(17) = 35: B(8.5) = 9.5
    expect_near(values.value[GD_TAG_SLOPE_B_OVER_A], log2(35.0 / 17.0) - log2(9.5 / 8.5), "slope of B/A", 17);
}

// ---- Steps that were not seen ---------------------------------------------------------------------------------------

Test(adam_totals, missing_steps_are_counted) {
    const struct gd_adam_config config = {.rule = GD_RULE_ADAM, .bias_correction = true};
    const struct { uint64_t optimizer_step, missing; } steps[] = {{5, 0}, {6, 0}, {8, 1}, {9, 0}, {1000009, 999999}};
    struct gd_adam_state state = {0};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct gd_adam_step step = gd_adam_begin_step(&config, &state, steps[i].optimizer_step, false, 0.9);
        cr_expect_eq(step.missing, steps[i].missing, "step %zu", i);
        cr_expect_eq(step.optimizer_step, steps[i].optimizer_step);
        cr_expect_eq(state.applied, i + 1);
        cr_expect_eq(state.first_optimizer_step, 5);
        cr_expect_eq(state.optimizer_step, steps[i].optimizer_step);
    }
}

Test(adam_totals, the_groups_lag_is_how_far_its_own_t_is_behind) {
    for (int counts = 0; counts <= 1; counts++) {
        const struct gd_adam_config config = {.rule = GD_RULE_ADAM, .absent_counts = counts};
        const struct gd_adam_step absent[] = {{.missing = 0}, {.missing = 4}, {.missing = 0}};
        struct gd_adam_group group = {.lag = 7, .updates = 3, .numerator = 1.0};

        for (size_t i = 0; i < ARRAY_SIZE(absent); i++)
            gd_adam_skip_group(&config, &group, &absent[i]);
        cr_expect_eq(group.lag, counts ? 7 : 7 + 1 + 5 + 1, "absent_counts %d: %" PRIu64, counts, group.lag);
        cr_expect_eq(group.updates, 3);
        cr_expect_eq(group.numerator, 1.0);
    }
}
