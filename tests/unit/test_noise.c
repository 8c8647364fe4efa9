#include "diagnostics/noise.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static bool near(double value, double expected, double relative) {
    return fabs(value - expected) <= relative * fabs(expected);
}

// ---- Estimates ------------------------------------------------------------------------------------------------------

Test(noise, two_batch_sizes_give_the_published_values) {
    const struct gd_noise_batch small = {32, 4.0}, big = {512, 1.3};
    struct gd_noise_estimate estimate;
    cr_assert(gd_noise_of_sizes(&small, &big, &estimate));
    cr_expect(near(estimate.S, 92.16, 1e-14), "%.17g", estimate.S);
    cr_expect(near(estimate.G2, 1.12, 1e-14), "%.17g", estimate.G2);
    cr_expect(near(estimate.S / estimate.G2, 82.2857142857142857, 1e-14));
}

// |g_b|^2 = G2 + S / b for every b: two of them give back what they were made of.
Test(noise, the_estimates_invert_the_model) {
    for (int i = -30; i <= 30; i += 5)
        for (int j = -30; j <= 30; j += 5) {
            double S = pow(10.0, i), G2 = pow(10.0, j);
            const struct gd_noise_batch small = {8, G2 + S / 8}, big = {4096, G2 + S / 4096};
            struct gd_noise_estimate estimate;
            double scale = small.squared_norm; // of which both are differences
            cr_assert(gd_noise_of_sizes(&small, &big, &estimate));
            cr_expect(fabs(estimate.S - S) <= 1e-14 * (S + 8 * scale), "S %g, G2 %g: %g", S, G2, estimate.S);
            cr_expect(fabs(estimate.G2 - G2) <= 1e-14 * (G2 + scale), "S %g, G2 %g: %g", S, G2, estimate.G2);
        }
}

Test(noise, there_is_no_estimate_without_two_sizes) {
    static const struct {
        struct gd_noise_batch small, big;
        bool is;
    } cases[] = {
        {{32, 4.0}, {512, 1.3}, true},
        {{0.5, 4.0}, {0.75, 1.3}, true}, // examples may be weighed
        {{32, 0.0}, {512, 0.0}, true},
        {{0, 4.0}, {512, 1.3}, false},
        {{32, 4.0}, {0, 1.3}, false},
        {{512, 4.0}, {512, 1.3}, false},
        {{1024, 4.0}, {512, 1.3}, false},
        {{32, (double)INFINITY}, {512, 1.3}, false},
        {{32, 4.0}, {512, (double)INFINITY}, false},
        {{32, (double)NAN}, {512, 1.3}, false},
        {{32, 1e308}, {33, 1.3}, false}, // S overflows
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_noise_estimate estimate = {-1.0, -2.0};
        cr_expect_eq(gd_noise_of_sizes(&cases[i].small, &cases[i].big, &estimate), cases[i].is, "case %zu", i);
        cr_expect(cases[i].is || (estimate.S == -1.0 && estimate.G2 == -2.0), "case %zu is untouched", i);
    }
}

// g_t = (3, 4), g_{t-1} = (1, 2): dot product 11, squared difference 8.
Test(noise, two_steps) {
    static const struct { double now, past, S; } cases[] = {{10, 10, 40}, {10, 40, 64}, {40, 10, 64}};
    struct gd_noise_estimate estimate;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct gd_noise_batch now = {cases[i].now, 25}, past = {cases[i].past, 5};
        cr_assert(gd_noise_of_steps(&now, &past, 11, &estimate));
        cr_expect(near(estimate.S, cases[i].S, 1e-15) && estimate.G2 == 11.0, "case %zu: %g", i, estimate.S);
    }
    const struct gd_noise_batch known = {10, 25}, unknown = {0, 5}, infinite = {10, (double)INFINITY};
    cr_expect_not(gd_noise_of_steps(&known, &unknown, 11, &estimate));
    cr_expect_not(gd_noise_of_steps(&unknown, &known, 11, &estimate));
    cr_expect_not(gd_noise_of_steps(&known, &infinite, 11, &estimate));
    cr_expect_not(gd_noise_of_steps(&known, &known, (double)NAN, &estimate));
}

// ---- Values ---------------------------------------------------------------------------------------------------------

// A step whose two norms have the given S and G2, between batch sizes 1 and 2: |g_1|^2 = G2 + S, |g_2|^2 = G2 + S / 2.
static struct gd_noise_step step_of(int64_t step, double S, double G2) {
    return (struct gd_noise_step){.step = step, .small = {1, G2 + S}, .big = {2, G2 + S / 2}};
}

static struct gd_noise_state state;

static bool take(struct gd_noise_step step, struct gd_values *values) {
    *values = (struct gd_values){0};
    return gd_noise_values(&state, &step, values);
}

Test(noise, the_first_steps_ratio_is_that_of_its_estimates) {
    struct gd_values values;
    state = (struct gd_noise_state){0};
    take((struct gd_noise_step){.small = {32, 4.0}, .big = {512, 1.3}}, &values);
    cr_expect(near(values.value[GD_TAG_NOISE_S], 92.16, 1e-14));
    cr_expect(near(values.value[GD_TAG_NOISE_G2], 1.12, 1e-14));
    cr_expect(near(values.value[GD_TAG_NOISE_B_SIMPLE], 82.2857142857142857, 1e-14));
    cr_expect(near(values.value[GD_TAG_FISHER_TRACE_EMPIRICAL], 93.28, 1e-14));
    cr_expect_not(gd_values_has(&values, GD_TAG_FISHER_TRACE));
    cr_expect_not(gd_values_has(&values, GD_TAG_NOISE_SINGLE_S));
}

Test(noise, the_scale_is_a_ratio_of_averages) {
    struct gd_values values;
    double sum_S = 0.0, sum_G2 = 0.0;
    state = (struct gd_noise_state){0};
    for (int64_t t = 1; t <= 500; t++) {
        double S = 3.0 + (double)(t * 7 % 11), G2 = (double)(t * 5 % 13) - 3.0; // often negative
        sum_S = 0.99 * sum_S + S, sum_G2 = 0.99 * sum_G2 + G2;
        take(step_of(t, S, G2), &values);
        cr_expect_eq(gd_values_has(&values, GD_TAG_NOISE_B_SIMPLE), sum_G2 > 0.0, "step %" PRId64, t);
        if (sum_G2 > 0.1)
            cr_expect(near(values.value[GD_TAG_NOISE_B_SIMPLE], sum_S / sum_G2, 1e-10), "step %" PRId64, t);
    }
}

Test(noise, a_ratio_is_absent_while_the_averaged_G2_is_not_positive) {
    struct gd_values values;
    state = (struct gd_noise_state){0};
    take(step_of(1, 8.0, -1.0), &values);
    cr_expect(gd_values_has(&values, GD_TAG_NOISE_G2) && !gd_values_has(&values, GD_TAG_NOISE_B_SIMPLE));
    take(step_of(2, 8.0, 0.5), &values); // the average is negative still
    cr_expect_not(gd_values_has(&values, GD_TAG_NOISE_B_SIMPLE));
    take(step_of(3, 8.0, 5.0), &values);
    cr_expect(gd_values_has(&values, GD_TAG_NOISE_B_SIMPLE));
}

Test(noise, what_is_not_finite_leaves_the_averages_alone) {
    struct gd_values values;
    state = (struct gd_noise_state){0};
    take(step_of(1, 8.0, 2.0), &values);
    struct gd_noise_state before = state;
    take(step_of(2, (double)INFINITY, 2.0), &values);
    take(step_of(3, (double)NAN, 2.0), &values);
    take((struct gd_noise_step){0}, &values);
    cr_expect(state.sizes.S == before.sizes.S && state.sizes.G2 == before.sizes.G2);
    cr_expect(state.sizes.weight == before.sizes.weight && state.steps.weight == before.steps.weight);
    cr_expect_eq(state.traces, before.traces);
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++)
        cr_expect_not(gd_values_has(&values, tag), "tag %u", tag);
}

Test(noise, both_kinds_are_averaged_apart) {
    struct gd_values values;
    struct gd_noise_step step = step_of(1, 8.0, 2.0);
    state = (struct gd_noise_state){0};
    step.past = (struct gd_noise_batch){4, 3.0};
    step.dot = 1.0;
    take(step, &values);
    cr_expect(near(values.value[GD_TAG_NOISE_SINGLE_S], (6.0 - 2.0 + 3.0) / (0.5 + 0.25), 1e-15));
    cr_expect_eq(values.value[GD_TAG_NOISE_SINGLE_G2], 1.0);
    cr_expect(near(values.value[GD_TAG_NOISE_SINGLE_B_SIMPLE], values.value[GD_TAG_NOISE_SINGLE_S], 1e-15));
    cr_expect(near(values.value[GD_TAG_NOISE_B_SIMPLE], 4.0, 1e-15));
}

Test(noise, labels_of_the_model_make_it_the_fisher_information) {
    struct gd_values values;
    struct gd_noise_step step = step_of(1, 8.0, 2.0);
    state = (struct gd_noise_state){0};
    step.labels_from_model = true;
    take(step, &values);
    cr_expect_eq(values.value[GD_TAG_FISHER_TRACE], 10.0);
    cr_expect_not(gd_values_has(&values, GD_TAG_FISHER_TRACE_EMPIRICAL));
}

// ---- The critical period --------------------------------------------------------------------------------------------

static double trace_at(int64_t t) { // rises to 100 at step 200, and falls to 1
    return t <= 200 ? (double)t / 2.0 : t <= 1000 ? 100.0 - (double)(t - 200) * 99.0 / 800.0 : 1.0;
}

Test(noise, the_end_of_the_critical_period_is_announced_once) {
    double sum = 0.0, weight = 0.0, peak = 0.0;
    int64_t peak_step = 0, end = 0;
    struct gd_values values;
    state = (struct gd_noise_state){0};
    for (int64_t t = 1; t <= 3000; t++) {
        double trace = t < 2000 ? trace_at(t) : 1e6; // a second rise is none
        bool expected = false;
        sum = 0.99 * sum + 0.01 * trace, weight = 0.99 * weight + 0.01;
        if (t >= 20 && sum / weight > peak)
            peak = sum / weight, peak_step = t;
        if (!end && t >= 20 && sum / weight <= peak / 2.0)
            end = t, expected = true;
        cr_expect_eq(take(step_of(t, trace, 0.0), &values), expected, "step %" PRId64, t);
        if (expected) {
            cr_expect(near(state.peak, peak, 1e-12) && state.peak_step == peak_step, "peak %g at step %" PRId64,
                      state.peak, state.peak_step);
        }
    }
    cr_expect(end > 600 && end < 1000, "at step %" PRId64, end);
}

Test(noise, a_steady_trace_has_no_end) {
    struct gd_values values;
    state = (struct gd_noise_state){0};
    for (int64_t t = 1; t <= 3000; t++)
        cr_expect_not(take(step_of(t, t % 2 ? 10.0 : 190.0, 0.0), &values), "step %" PRId64, t);
}

Test(noise, a_wild_beginning_is_no_peak) {
    struct gd_values values;
    state = (struct gd_noise_state){0};
    for (int64_t t = 1; t <= 1000; t++)
        cr_expect_not(take(step_of(t, t == 1 ? 20.0 : 1.0, 0.0), &values), "step %" PRId64, t);
}

Test(noise, traces_that_are_not_positive_have_no_peak) {
    struct gd_values values;
    state = (struct gd_noise_state){0};
    for (int64_t t = 1; t <= 100; t++)
        cr_expect_not(take(step_of(t, t < 50 ? 0.0 : -1.0, 0.0), &values), "step %" PRId64, t);
}
