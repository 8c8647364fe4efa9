#include "arithmetic.h"

#include <criterion/criterion.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>

// The reference must round much finer than what it judges.
_Static_assert(LDBL_MANT_DIG >= 64, "these tests need long double wider than double");

static uint64_t next_random(uint64_t *state) { // splitmix64
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double random_unit(uint64_t *state) { // in [0, 1)
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

static void expect_log2(double x) {
    long double exact = log2l((long double)x);
    long double error = fabsl((long double)gd_log2(x) - exact);

    cr_assert(error <= 1e-14L * fabsl(exact), "log2(%a) = %a, exactly %La", x, gd_log2(x), exact);
}

static void expect_power(double base, uint64_t exponent) {
    long double exact = powl((long double)base, (long double)exponent);
    long double bound = 0x1p-52L * fmaxl(1.0L, (long double)exponent);
    long double error = fabsl((long double)gd_power(base, exponent) - exact);

    cr_assert(error <= bound * fabsl(exact), "%a^%" PRIu64 " = %a, exactly %La", base, exponent,
              gd_power(base, exponent), exact);
}

Test(arithmetic, log2_of_powers_of_two_is_exact) {
    for (int exponent = -1074; exponent <= 1023; exponent++) {
        double x = ldexp(1.0, exponent);
        cr_assert(gd_log2(x) == (double)exponent, "log2(2^%d) = %a", exponent, gd_log2(x));
    }
}

Test(arithmetic, log2_is_accurate_over_the_whole_range) {
    uint64_t seed = 1;

    for (int i = 0; i < 200000; i++) {
        int exponent = (int)(next_random(&seed) % 2098) - 1074;
        expect_log2(ldexp(1.0 + random_unit(&seed), exponent < 1023 ? exponent : 1022));
    }
    expect_log2(DBL_MAX);
    expect_log2(DBL_MIN);
    expect_log2(nextafter(DBL_MIN, 0.0));
}

Test(arithmetic, log2_is_accurate_relative_to_its_result_near_1) {
    for (int distance = 1; distance <= 52; distance++) {
        expect_log2(1.0 + ldexp(1.0, -distance));
        expect_log2(1.0 - ldexp(1.0, -distance - 1));
    }
}

Test(arithmetic, log2_is_accurate_where_the_series_is_slowest) {
    const double edges[] = {0.70710678118654752, 1.4142135623730951, 2.8284271247461903};

    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        double below = edges[i];
        double above = edges[i];
        for (int ulps = 0; ulps < 1000; ulps++) {
            expect_log2(below = nextafter(below, 0.0));
            expect_log2(above = nextafter(above, HUGE_VAL));
        }
    }
}

Test(arithmetic, log2_outside_its_domain_is_not_a_number) {
    const double outside[] = {0.0, -0.0, -1.0, HUGE_VAL, -HUGE_VAL, nan("")};

    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        cr_assert(isnan(gd_log2(outside[i])), "log2(%a) = %a", outside[i], gd_log2(outside[i]));
}

Test(arithmetic, power_of_exact_cases_is_exact) {
    const struct {
        double base;
        uint64_t exponent;
        double power;
    } cases[] = {
        {0.9, 0, 1.0},
        {0.0, 0, 1.0},
        {0.0, 7, 0.0},
        {1.0, UINT64_MAX, 1.0},
        {0.9, 1, 0.9},
        {2.0, 10, 1024.0},
        {2.0, 1023, 0x1p1023},
        {0.5, 1074, 0x1p-1074},
        {-1.0, 3, -1.0},
        {-1.0, UINT64_MAX, -1.0},
        {3.0, 33, 5559060566555523.0},
        {2.0, 1024, HUGE_VAL},
        {0.5, 1076, 0.0},
        {0.5, UINT64_MAX, 0.0},
        {2.0, UINT64_MAX, HUGE_VAL},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double power = gd_power(cases[i].base, cases[i].exponent);
        cr_assert(power == cases[i].power, "%a^%" PRIu64 " = %a", cases[i].base, cases[i].exponent, power);
    }
}

Test(arithmetic, power_of_decay_rates_is_accurate_for_every_step_count) {
    const double rates[] = {0.1, 0.5, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9995, 0.9999, 0.999999};

    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        for (uint64_t step = 1; step <= 20000 && pow(rates[i], (double)step) > DBL_MIN; step++)
            expect_power(rates[i], step);
    }
}

// Bases chosen so that the power stays in [2^-1000, 2^1000]. powl itself is good to some 2^-62.
Test(arithmetic, power_is_accurate_up_to_large_exponents) {
    uint64_t seed = 2;

    for (int i = 0; i < 200000; i++) {
        uint64_t start = seed;
        uint64_t exponent = 1 + next_random(&seed) % (UINT64_C(1) << (1 + next_random(&seed) % 40));
        double log2_power = 2000.0 * random_unit(&seed) - 1000.0;
        double base = exp2(log2_power / (double)exponent);

        cr_assert(base > 0.0, "seed %" PRIu64, start);
        if (base < 0x1p1000 && base > 0x1p-1000)
            expect_power(base, exponent);
    }
}
