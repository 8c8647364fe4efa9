#include "diagnostics/coherence.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define ALL_LAGS UINT32_MAX
#define NONE ((double)NAN) // no value

// Sums of a snapshot with |g|^2 = 4 whose ratio to lag m is ratios[m - 1], |g_{t-m}|^2 = 16.
static struct gd_step_sums sums_of(const double *ratios, uint32_t n) {
    struct gd_step_sums sums;
    gd_step_sums_init(&sums);
    sums.elements = 8;
    sums.squared_norm = 4.0;
    for (uint32_t i = 0; i < n; i++) {
        sums.squared_norm_now[i] = 4.0;
        sums.squared_norm_past[i] = 16.0;
        sums.dot[i] = 4.0 * ratios[i];
    }
    return sums;
}

static struct gd_values values_of(const struct gd_step_sums *sums, uint32_t max_lag, uint32_t known_lags) {
    struct gd_values values = {0};
    gd_coherence_values(sums, max_lag, known_lags, &values);
    return values;
}

static void expect_value(const struct gd_values *values, enum gd_tag tag, double expected, size_t i) {
    struct gd_tag_text text;
    gd_tag_describe(tag, &text);
    cr_expect_eq(gd_values_has(values, tag), !isnan(expected), "case %zu: %s", i, text.name);
    if (!isnan(expected))
        cr_expect(fabs(values->value[tag] - expected) <= 4.0 * DBL_EPSILON * fabs(expected),
                  "case %zu: %s is %.17g, not %.17g", i, text.name, values->value[tag], expected);
}

Test(coherence, a_lag_has_the_cosine_and_ratio_of_the_papers) {
    const struct {
        double dot, now, past, cosine, ratio;
    } cases[] = {
        {4.0, 4.0, 4.0, 1.0, 1.0},                                           // the same gradient
        {8.0, 4.0, 16.0, 1.0, 2.0},                                          // twice as long in the past
        {-4.0, 4.0, 4.0, -1.0, -1.0},                                        // turned round
        {-2.0, 1.0, 4.0, -1.0, -2.0},                                        // turned round and shorter
        {0.0, 4.0, 9.0, 0.0, 0.0},                                           // at right angles
        {3.0, 4.0, 9.0, 0.5, 0.75},                                          // at 60 degrees
        {0.0, 4.0, 0.0, NONE, 0.0},                                          // the past gradient is zero
        {0.0, 0.0, 4.0, NONE, NONE},                                         // this one is
        {0.0, 0.0, 0.0, NONE, NONE},     {1e-300, 1e-300, 1e-300, 1.0, 1.0}, // the product of the norms would underflow
        {1e300, 1e300, 1e300, 1.0, 1.0},                                     // ... or overflow
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_step_sums sums;
        gd_step_sums_init(&sums);
        sums.squared_norm = sums.squared_norm_now[1] = cases[i].now;
        sums.squared_norm_past[1] = cases[i].past;
        sums.dot[1] = cases[i].dot;
        struct gd_values values = values_of(&sums, 5, 1 << 1);
        expect_value(&values, GD_TAG_COSINE_LAG + 1, cases[i].cosine, i);
        expect_value(&values, GD_TAG_RATIO_LAG + 1, cases[i].ratio, i);
    }
}

Test(coherence, a_lag_uses_the_norms_of_its_own_groups) {
    struct gd_step_sums sums;
    gd_step_sums_init(&sums);
    sums.squared_norm = 100.0; // a group that was absent then is part of it
    sums.squared_norm_now[0] = 4.0;
    sums.squared_norm_past[0] = 4.0;
    sums.dot[0] = 2.0;
    struct gd_values values = values_of(&sums, 1, ALL_LAGS);
    expect_value(&values, GD_TAG_COSINE_LAG, 0.5, 0);
    expect_value(&values, GD_TAG_RATIO_LAG, 0.5, 0);
}

Test(coherence, unknown_lags_have_no_value) {
    double ratios[GD_LAG_MAX];
    for (uint32_t i = 0; i < GD_LAG_MAX; i++)
        ratios[i] = 0.5;
    struct gd_step_sums sums = sums_of(ratios, GD_LAG_MAX);

    for (uint32_t max_lag = 1; max_lag <= GD_LAG_MAX; max_lag++)
        for (uint32_t missing = 0; missing <= GD_LAG_MAX; missing++) { // GD_LAG_MAX: none is
            uint32_t known = missing < GD_LAG_MAX ? ~(UINT32_C(1) << missing) : ALL_LAGS;
            struct gd_values values = values_of(&sums, max_lag, known);
            for (uint32_t i = 0; i < GD_LAG_MAX; i++) {
                bool has = i < max_lag && i != missing;
                cr_assert_eq(gd_values_has(&values, GD_TAG_COSINE_LAG + i), has, "M %u, lag %u", max_lag, i + 1);
                cr_assert_eq(gd_values_has(&values, GD_TAG_RATIO_LAG + i), has, "M %u, lag %u", max_lag, i + 1);
            }
            cr_assert_eq(gd_values_has(&values, GD_TAG_MU), missing + 1 >= max_lag, "M %u, missing %u", max_lag,
                         missing + 1);
            cr_assert_eq(gd_values_has(&values, GD_TAG_MU_PAST), missing >= max_lag, "M %u, missing %u", max_lag,
                         missing + 1);
            cr_assert_eq(gd_values_has(&values, GD_TAG_TOLERABLE_STALENESS), missing >= max_lag);
        }
}

Test(coherence, mu_and_tolerable_staleness_follow_their_windows) {
    const struct {
        uint32_t max_lag, known_lags;
        double ratios[5];
        double mu, mu_past, tolerable_staleness; // NONE: no value
    } cases[] = {
        {1, ALL_LAGS, {0.5}, 1.0, 0.5, 1},
        {1, ALL_LAGS, {2.0}, 1.0, 2.0, 1}, // mu never exceeds lag 0's 1, mu_past may
        {1, ALL_LAGS, {-0.5}, 1.0, -0.5, 0},
        {1, ALL_LAGS, {0.0}, 1.0, 0.0, 0}, // positive, not "not negative"
        {1, 0, {0.5}, 1.0, NONE, NONE},    // M = 1: the window 0..M-1 is lag 0 alone
        {2, ALL_LAGS, {0.5, 0.25}, 0.5, 0.25, 2},
        {2, ALL_LAGS, {3.0, 2.0}, 1.0, 2.0, 2},
        {2, ALL_LAGS, {0.5, -0.25}, 0.5, -0.25, 1},
        {2, 1 << 0, {0.5, 0.25}, 0.5, NONE, NONE},
        {2, 1 << 1, {0.5, 0.25}, NONE, NONE, NONE},
        {5, ALL_LAGS, {0.9, 0.7, 0.8, 0.6, 0.5}, 0.6, 0.5, 5},
        {5, ALL_LAGS, {0.9, 0.7, -0.1, 0.6, 0.5}, -0.1, -0.1, 2},
        {5, ALL_LAGS, {-0.9, 0.7, 0.1, 0.6, 0.5}, -0.9, -0.9, 0},
        {5, ALL_LAGS, {0.9, 0.7, 0.1, 0.6, -3.0}, 0.1, -3.0, 4},
        {5, 0x0f, {0.9, 0.7, 0.1, 0.6, -3.0}, 0.1, NONE, NONE},
        {5, 0x17, {0.9, 0.7, 0.1, 0.6, -3.0}, NONE, NONE, NONE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_step_sums sums = sums_of(cases[i].ratios, 5);
        struct gd_values values = values_of(&sums, cases[i].max_lag, cases[i].known_lags);
        expect_value(&values, GD_TAG_MU, cases[i].mu, i);
        expect_value(&values, GD_TAG_MU_PAST, cases[i].mu_past, i);
        expect_value(&values, GD_TAG_TOLERABLE_STALENESS, cases[i].tolerable_staleness, i);
    }
}

Test(coherence, the_largest_window_has_32_lags) {
    for (uint32_t worst = 0; worst < GD_LAG_MAX; worst++) {
        double ratios[GD_LAG_MAX];
        for (uint32_t i = 0; i < GD_LAG_MAX; i++)
            ratios[i] = i == worst ? -0.5 : 0.5;
        struct gd_step_sums sums = sums_of(ratios, GD_LAG_MAX);
        struct gd_values values = values_of(&sums, GD_LAG_MAX, ALL_LAGS);
        expect_value(&values, GD_TAG_MU, worst == GD_LAG_MAX - 1 ? 0.5 : -0.5, worst);
        expect_value(&values, GD_TAG_MU_PAST, -0.5, worst);
        expect_value(&values, GD_TAG_TOLERABLE_STALENESS, worst, worst);
    }
}

Test(coherence, a_zero_gradient_has_no_coherence) {
    for (uint32_t max_lag = 1; max_lag <= GD_LAG_MAX; max_lag++) {
        struct gd_step_sums sums;
        gd_step_sums_init(&sums);
        for (uint32_t i = 0; i < GD_LAG_MAX; i++)
            sums.squared_norm_past[i] = 4.0;
        struct gd_values values = values_of(&sums, max_lag, ALL_LAGS);
        for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++)
            cr_assert_not(gd_values_has(&values, (enum gd_tag)tag), "M %u, tag %u", max_lag, tag);
    }
}
