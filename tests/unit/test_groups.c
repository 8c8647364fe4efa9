// What is shown of a group: values from step sums, and what is kept from step to step.
#include "diagnostics/groups.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static struct gd_series_totals totals;
static struct gd_group_values values;

static struct gd_step_sums some_sums(void) {
    struct gd_step_sums sums;
    gd_step_sums_init(&sums);
    sums.elements = 10;
    sums.zeros = 2;
    sums.non_finite = 1;
    sums.active = 7;
    sums.max_abs = 3.0f;
    sums.squared_norm = 25.0;
    sums.dot[0] = 15.0;
    sums.squared_norm_now[0] = 25.0;
    sums.squared_norm_past[0] = 36.0;
    sums.A = 14.0;
    sums.B = 7.0;
    sums.C = 3.5;
    return sums;
}

static bool has(unsigned quantity) {
    return values.present >> quantity & 1;
}

Test(groups, values_follow_from_the_sums) {
    const struct gd_step_sums sums = some_sums();
    gd_groups_values(&totals, &sums, true, 2, &values);
    const struct {
        unsigned quantity;
        double value;
    } expected[] = {
        {GD_GROUP_NORM, 5.0},     {GD_GROUP_MAX_ABS, 3.0},   {GD_GROUP_ZERO_FRACTION, 0.2},  {GD_GROUP_NON_FINITE, 1.0},
        {GD_GROUP_B_OVER_A, 0.5}, {GD_GROUP_C_OVER_A, 0.25}, {GD_GROUP_STEP_SIZE_MEAN, 2.0}, {GD_GROUP_COSINE_LAG, 0.5},
    };
    uint64_t present = 0;
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        present |= UINT64_C(1) << expected[i].quantity;
        cr_expect_eq(values.value[expected[i].quantity], expected[i].value, "quantity %u", expected[i].quantity);
    }
    cr_expect_eq(values.present, present); // no cosine of lag 2
}

Test(groups, a_series_that_is_absent_has_no_values_and_keeps_its_totals) {
    struct gd_step_sums sums = some_sums(), none;
    gd_step_sums_init(&none);
    gd_groups_values(&totals, &sums, true, 2, &values);
    struct gd_series_totals before = totals;
    gd_groups_values(&totals, &none, true, 2, &values);
    cr_expect_eq(values.present, 0);
    cr_expect_eq(memcmp(&totals, &before, sizeof(totals)), 0);
}

Test(groups, totals_grow_with_measured_steps_alone) {
    struct gd_step_sums sums = some_sums();
    gd_groups_values(&totals, &sums, true, 2, &values);
    gd_groups_values(&totals, &sums, false, 2, &values);
    cr_expect(!has(GD_GROUP_B_OVER_A) && !has(GD_GROUP_C_OVER_A) && !has(GD_GROUP_STEP_SIZE_MEAN));
    cr_expect(has(GD_GROUP_NORM) && has(GD_GROUP_COSINE_LAG) && has(GD_GROUP_MAX_ABS));
    sums.B = 21.0;
    sums.C = 0.0;
    gd_groups_values(&totals, &sums, true, 2, &values);
    cr_expect_eq(values.value[GD_GROUP_B_OVER_A], 1.0);
    cr_expect_eq(values.value[GD_GROUP_C_OVER_A], 0.125);
    sums.A = sums.B = sums.C = (double)INFINITY; // left out, as of the run's own totals
    gd_groups_values(&totals, &sums, true, 2, &values);
    cr_expect_eq(values.value[GD_GROUP_B_OVER_A], 1.0);
    cr_expect_eq(values.value[GD_GROUP_C_OVER_A], 0.125);
}

Test(groups, there_is_no_ratio_without_a_step_size) {
    struct gd_step_sums sums = some_sums();
    sums.A = sums.B = sums.C = 0.0;
    gd_groups_values(&totals, &sums, true, 2, &values);
    cr_expect(!has(GD_GROUP_B_OVER_A) && !has(GD_GROUP_C_OVER_A));
    cr_expect(has(GD_GROUP_STEP_SIZE_MEAN) && values.value[GD_GROUP_STEP_SIZE_MEAN] == 0.0);
    sums.active = 0;
    gd_groups_values(&totals, &sums, true, 2, &values);
    cr_expect(!has(GD_GROUP_STEP_SIZE_MEAN));
}

Test(groups, max_abs_and_non_finite_are_the_windows_maxima) {
    const float max_abs[] = {1.0f, 4.0f, 2.0f};
    const uint64_t non_finite[] = {3, 0, 1};
    const double shown[][2] = {{1.0, 3.0}, {4.0, 3.0}, {4.0, 3.0}};
    for (size_t i = 0; i < ARRAY_SIZE(max_abs); i++) {
        struct gd_step_sums sums = some_sums();
        sums.max_abs = max_abs[i];
        sums.non_finite = non_finite[i];
        gd_groups_values(&totals, &sums, false, 2, &values);
        cr_expect_eq(values.value[GD_GROUP_MAX_ABS], shown[i][0], "step %zu", i);
        cr_expect_eq(values.value[GD_GROUP_NON_FINITE], shown[i][1], "step %zu", i);
    }
}

Test(groups, a_cosine_needs_two_norms_that_are_numbers) {
    const struct {
        double dot, now, past;
        bool shown;
    } cases[] = {
        {1.0, 1.0, 1.0, true},
        {0.0, 0.0, 1.0, false},
        {0.0, 1.0, 0.0, false},
        {(double)INFINITY, 1.0, 1.0, false},
        {1.0, (double)INFINITY, 1.0, false},
        {1.0, 1.0, (double)INFINITY, false},
        {-1.0, 4.0, 1.0, true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_step_sums sums = some_sums();
        sums.dot[31] = cases[i].dot;
        sums.squared_norm_now[31] = cases[i].now;
        sums.squared_norm_past[31] = cases[i].past;
        gd_groups_values(&totals, &sums, false, 32, &values);
        cr_expect_eq(has(GD_GROUP_COSINE_LAG + 31), cases[i].shown, "case %zu", i);
    }
}
