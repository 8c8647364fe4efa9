// The kernels against the mathematics of kernels.h, summed plainly in long double.
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "element_values.h"
#include "kernel_cases.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static void analyse(const struct gd_chunk *chunk, struct gd_step_sums *ret_sums) {
    gd_step_sums_init(ret_sums); // kernels leave lags that the chunk has not
    gd_kernels_scalar.analyse(chunk, ret_sums);
}

// ---- Sums against the mathematics -----------------------------------------------------------------------------------

// A sum of `n` terms with what the kernel may be off. Each term carries its own error (kernel_cases.h); adding takes at
// most GD_FLUSH_ELEMS / GD_LANES = 64 float additions a lane, each rounding by U = 2^-24 of at most the sum of sizes;
// the double lanes add some 2^-46 of that, for which one more U is ample.
struct expected_sum {
    long double value;
    long double size; // sum of |term| + error
    long double error;
};

static void expect_term(struct expected_sum *sum, struct approx term) {
    sum->value += term.value;
    sum->size += fabsl(term.value) + term.error;
    sum->error += term.error;
}

static void check_sum(const struct kernel_case *c, const char *name, double actual,
                      const struct expected_sum *expected) {
    const long double additions = GD_FLUSH_ELEMS / GD_LANES + 1;
    long double tolerance = expected->error + additions * U * expected->size;

    if (isnan(expected->value)) {
        cr_assert(isnan(actual), "%s: %s is %a, expected nan", kernel_case_text(c), name, actual);
    } else if (isinf(expected->value)) {
        cr_assert((long double)actual == expected->value, "%s: %s is %a, expected %Lg", kernel_case_text(c), name,
                  actual, expected->value);
    } else {
        cr_assert(fabsl((long double)actual - expected->value) <= tolerance, "%s: %s is %a, expected %La within %Lg",
                  kernel_case_text(c), name, actual, expected->value, tolerance);
    }
}

// A product that overflows float is an infinity of its sign, as in the lanes.
static struct approx product_term(float a, float b) {
    long double product = (long double)a * (long double)b;

    if (fabsl(product) > (long double)FLT_MAX)
        return (struct approx){copysignl(HUGE_VALL, product), 0.0L};
    return rounded(product, 0.0L);
}

static void check_counts(const struct kernel_case *c, const struct gd_step_sums *sums) {
    uint64_t zeros = 0;
    uint64_t non_finite = 0;
    float max_abs = 0.0f;

    for (size_t i = 0; i < c->chunk.elems; i++) {
        float g = c->gradient[i];
        bool finite = isfinite(g);

        non_finite += !finite;
        zeros += g == 0.0f;
        max_abs = finite ? fmaxf(max_abs, fabsf(g)) : max_abs;
    }
    const char *text = kernel_case_text(c);
    cr_assert(sums->elements == c->chunk.elems, "%s: %" PRIu64 " elements", text, sums->elements);
    cr_assert(sums->zeros == zeros, "%s: %" PRIu64 " zeros, expected %" PRIu64, text, sums->zeros, zeros);
    cr_assert(sums->non_finite == non_finite, "%s: %" PRIu64 " non-finite", text, sums->non_finite);
    cr_assert(sums->active == c->chunk.elems - zeros - non_finite, "%s: %" PRIu64 " active", text, sums->active);
    cr_assert(sums->max_abs == max_abs, "%s: max_abs %a, expected %a", text, (double)sums->max_abs, (double)max_abs);
    cr_assert(sums->first_non_finite_group == UINT32_MAX, "%s: groups are the caller's", text);
}

static void check_products(const struct kernel_case *c, const struct gd_step_sums *sums) {
    struct expected_sum squared_norm = {0};

    for (size_t i = 0; i < c->chunk.elems; i++)
        expect_term(&squared_norm, product_term(cleaned(c->gradient[i]), cleaned(c->gradient[i])));
    check_sum(c, "squared_norm", sums->squared_norm, &squared_norm);

    for (uint32_t lag = 0; lag < GD_LAG_MAX; lag++) {
        struct expected_sum dot = {0};
        char name[16];

        snprintf(name, sizeof(name), "dot[%u]", lag);
        if (lag < c->chunk.lags && c->chunk.history[lag]) {
            for (size_t i = 0; i < c->chunk.elems; i++)
                expect_term(&dot, product_term(cleaned(c->gradient[i]), cleaned(c->history[lag][i])));
        }
        check_sum(c, name, sums->dot[lag], &dot);
        cr_assert(sums->squared_norm_now[lag] == 0.0 && sums->squared_norm_past[lag] == 0.0);
    }
}

static void check_root(const struct kernel_case *c, const char *name, size_t i, float actual, struct approx expected) {
    cr_assert(fabsl((long double)actual - expected.value) <= expected.error,
              "%s: %s[%zu] is %a, expected %La within %Lg ulp", kernel_case_text(c), name, i, (double)actual,
              expected.value, expected.error / (2.0L * U * expected.value));
    // The error followed through the operations is a few ulp for a gain of at most 0.9 (v' then keeps a tenth of v).
    cr_assert(expected.error <= 2.0L * U * expected.value * 24.0L, "%s: the bound itself is useless",
              kernel_case_text(c));
}

static void check_second_moment(const struct kernel_case *c, const struct gd_step_sums *sums) {
    struct expected_sum A = {0}, B = {0}, C = {0}, D = {0}, relative_square = {0};
    long double step_size_min = HUGE_VALL;
    long double step_size_error = 0.0L;

    for (size_t i = 0; c->chunk.root && i < c->chunk.elems; i++) {
        float maximum = c->chunk.maximum ? c->chunk.maximum[i] : 0.0f;
        struct element_terms terms =
            element_terms(c->chunk.step, c->gradient[i], c->chunk.root[i], c->chunk.maximum ? &maximum : NULL);

        check_root(c, "root_next", i, c->chunk.root_next[i], terms.root_next);
        if (c->chunk.maximum)
            check_root(c, "maximum_next", i, c->chunk.maximum_next[i], terms.maximum_next);
        if (!terms.active || !c->chunk.step->measured)
            continue;
        expect_term(&A, terms.step_size);
        expect_term(&B, terms.squared_update);
        expect_term(&relative_square, terms.relative_square);
        step_size_min = fminl(step_size_min, terms.step_size.value);
        step_size_error = fmaxl(step_size_error, terms.step_size.error / terms.step_size.value);
        if (terms.compared) {
            expect_term(&C, terms.absolute_change);
            expect_term(&D, terms.squared_change);
        }
    }
    check_sum(c, "A", sums->A, &A);
    check_sum(c, "B", sums->B, &B);
    check_sum(c, "C", sums->C, &C);
    check_sum(c, "D", sums->D, &D);
    check_sum(c, "relative_square", sums->relative_square, &relative_square);
    if (isinf(step_size_min)) {
        cr_assert(isinf(sums->step_size_min), "%s: step_size_min is not neutral", kernel_case_text(c));
    } else { // the minimum's relative error is at most the largest of any element's
        cr_assert(fabsl((long double)sums->step_size_min - step_size_min) <= step_size_error * 2.0L * step_size_min,
                  "%s: step_size_min %a, expected %La", kernel_case_text(c), (double)sums->step_size_min,
                  step_size_min);
    }
}

static void check_typed_case(uint64_t seed, enum gd_element_type type, size_t elems, uint32_t lags,
                             const struct rule_form *form, enum distribution distribution) {
    struct kernel_case *c = kernel_case_new(seed, type, elems, lags, form, distribution);
    struct gd_step_sums sums;

    memset(&sums, 0xa5, sizeof(sums));
    analyse(&c->chunk, &sums);
    check_counts(c, &sums);
    check_products(c, &sums);
    check_second_moment(c, &sums);
    cr_assert(kernel_case_is_intact(c), "%s: wrote outside root_next and maximum_next", kernel_case_text(c));
    kernel_case_free(c);
}

static void check_case(uint64_t seed, size_t elems, uint32_t lags, const struct rule_form *form,
                       enum distribution distribution) {
    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++)
        check_typed_case(seed, type, elems, lags, form, distribution);
}

Test(kernels, sums_follow_the_mathematics_for_every_short_length) {
    for (size_t elems = 0; elems <= 300; elems++) {
        for (size_t form = 0; form < n_rule_forms; form++) {
            uint64_t seed = elems * n_rule_forms + form;
            check_case(seed, elems, (uint32_t)(seed * 7 % 4), &rule_forms[form],
                       (enum distribution)(seed % DISTRIBUTIONS));
        }
    }
}

Test(kernels, sums_follow_the_mathematics_for_every_number_of_lags) {
    for (uint32_t lags = 0; lags <= GD_LAG_MAX; lags++)
        check_case(lags, 1500 + 37 * lags, lags, &rule_forms[lags % n_rule_forms],
                   (enum distribution)(lags % DISTRIBUTIONS));
}

Test(kernels, sums_follow_the_mathematics_for_every_rule_form_and_distribution) {
    for (size_t form = 0; form < n_rule_forms; form++) {
        for (int distribution = 0; distribution < DISTRIBUTIONS; distribution++)
            check_case(1000 + form, 2500, 2, &rule_forms[form], (enum distribution)distribution);
    }
}

Test(kernels, sums_follow_the_mathematics_for_long_chunks) {
    uint64_t seed = 77;

    for (int i = 0; i < 24; i++) {
        uint32_t elems = random_below(&seed, GD_CHUNK_ELEMS);
        check_case(seed, elems, random_below(&seed, 7), &rule_forms[random_below(&seed, (uint32_t)n_rule_forms)],
                   (enum distribution)random_below(&seed, DISTRIBUTIONS));
    }
    for (int distribution = 0; distribution < DISTRIBUTIONS; distribution++)
        check_case(seed, GD_CHUNK_ELEMS, 2, &rule_forms[2], (enum distribution)distribution);
}

Test(kernels, each_kind_of_element_is_counted_as_what_it_is) {
    const struct {
        enum gd_element_type type;
        uint32_t bits;
        uint64_t zeros, non_finite, active;
        float max_abs;
    } cases[] = {
        {GD_F32, 0x00000000, 1, 0, 0, 0.0f},      {GD_F32, 0x80000000, 1, 0, 0, 0.0f},
        {GD_F32, 0x3f800000, 0, 0, 1, 1.0f},      {GD_F32, 0xc0000000, 0, 0, 1, 2.0f},
        {GD_F32, 0x7f7fffff, 0, 0, 1, FLT_MAX},   {GD_F32, 0xff7fffff, 0, 0, 1, FLT_MAX},
        {GD_F32, 0x00000001, 0, 0, 1, 0x1p-149f}, {GD_F32, 0x7f800000, 0, 1, 0, 0.0f},
        {GD_F32, 0xff800000, 0, 1, 0, 0.0f},      {GD_F32, 0x7fc00000, 0, 1, 0, 0.0f},
        {GD_F32, 0xffc00000, 0, 1, 0, 0.0f},      {GD_F32, 0x7f800001, 0, 1, 0, 0.0f},
        {GD_BF16, 0x0000, 1, 0, 0, 0.0f},         {GD_BF16, 0x8000, 1, 0, 0, 0.0f},
        {GD_BF16, 0x3f80, 0, 0, 1, 1.0f},         {GD_BF16, 0xc000, 0, 0, 1, 2.0f},
        {GD_BF16, 0x7f7f, 0, 0, 1, 0x1.fep127f},  {GD_BF16, 0xff7f, 0, 0, 1, 0x1.fep127f},
        {GD_BF16, 0x0001, 0, 0, 1, 0x1p-133f},    {GD_BF16, 0x7f80, 0, 1, 0, 0.0f},
        {GD_BF16, 0xff80, 0, 1, 0, 0.0f},         {GD_BF16, 0x7fc0, 0, 1, 0, 0.0f},
        {GD_BF16, 0xffc0, 0, 1, 0, 0.0f},         {GD_BF16, 0x7f81, 0, 1, 0, 0.0f},
        {GD_F16, 0x0000, 1, 0, 0, 0.0f},          {GD_F16, 0x8000, 1, 0, 0, 0.0f},
        {GD_F16, 0x3c00, 0, 0, 1, 1.0f},          {GD_F16, 0xc000, 0, 0, 1, 2.0f},
        {GD_F16, 0x7bff, 0, 0, 1, 65504.0f},      {GD_F16, 0xfbff, 0, 0, 1, 65504.0f},
        {GD_F16, 0x0001, 0, 0, 1, 0x1p-24f},      {GD_F16, 0x7c00, 0, 1, 0, 0.0f},
        {GD_F16, 0xfc00, 0, 1, 0, 0.0f},          {GD_F16, 0x7e00, 0, 1, 0, 0.0f},
        {GD_F16, 0xfe00, 0, 1, 0, 0.0f},          {GD_F16, 0x7c01, 0, 1, 0, 0.0f},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t element;
        struct gd_chunk chunk = {.elems = 1, .type = cases[i].type, .gradient = &element};
        struct gd_step_sums sums;

        element_store(cases[i].type, &element, 0, cases[i].bits);
        analyse(&chunk, &sums);
        cr_expect(sums.zeros == cases[i].zeros && sums.non_finite == cases[i].non_finite &&
                      sums.active == cases[i].active && sums.max_abs == cases[i].max_abs,
                  "type %d, 0x%x: zeros %" PRIu64 ", non_finite %" PRIu64 ", active %" PRIu64 ", max_abs %a",
                  (int)cases[i].type, cases[i].bits, sums.zeros, sums.non_finite, sums.active, (double)sums.max_abs);
    }
}

// ---- Golden values --------------------------------------------------------------------------------------------------

// Problem P2: one variable, b2 = 0.1, eps 0, no bias correction. The gradient is 11 x (clipped at |x| = 1) once in 11
// steps, else -x (likewise).
static double p2_gradient(int64_t step, double x) {
    double clipped = x > 1.0 ? 1.0 : x < -1.0 ? -1.0 : x;

    return (step - 1) % 11 == 0 ? 11.0 * clipped : -clipped;
}

struct p2_run {
    const char *name;
    bool amsgrad;  // with its uncorrected maximum
    bool decaying; // rate 1 / sqrt(t), else 1
    int64_t steps;
    double A, B, C, D;
};

static double p2_rate(const struct p2_run *run, int64_t step) {
    return run->decaying ? 1.0 / sqrt((double)step) : 1.0;
}

static struct gd_step_sums p2_simulate(const struct p2_run *run) {
    _Alignas(64) float root[2] = {0};
    _Alignas(64) float root_next[2] = {0};
    _Alignas(64) float maximum[2] = {0};
    _Alignas(64) float maximum_next[2] = {0};
    const double b2 = 0.1;
    double x = 2.0, v = 0.0, v_max = 0.0; // the trainer's own optimiser, in double
    struct gd_step_sums sums, part;

    gd_step_sums_init(&sums);
    for (int64_t t = 1; t <= run->steps; t++) {
        double g = p2_gradient(t, x);
        float sent = (float)g;
        struct gd_second_moment_step step = {
            .gain = (float)(1.0 - b2),
            .keep = 1.0f,
            .max_scale = 1.0f,
            .scale = 1.0f,
            .scale_before = 1.0f,
            .measured = true,
            .has_before = t > 1,
            .numerator = (float)p2_rate(run, t),
            .numerator_rise = t > 1 ? (float)(p2_rate(run, t) - p2_rate(run, t - 1)) : 0.0f,
        };
        struct gd_chunk chunk = {
            .elems = 1, .type = GD_F32, .gradient = &sent, .step = &step, .root = root, .root_next = root_next};

        if (run->amsgrad)
            chunk.maximum = maximum, chunk.maximum_next = maximum_next;
        analyse(&chunk, &part);
        gd_step_sums_merge(&sums, &part, 0);
        root[0] = root_next[0];
        maximum[0] = maximum_next[0];

        v = b2 * v + (1.0 - b2) * g * g;
        v_max = fmax(v, v_max);
        x -= p2_rate(run, t) * g / sqrt(run->amsgrad ? v_max : v);
    }
    return sums;
}

Test(kernels, adam_sums_of_problem_p2_are_the_golden_values) {
    const struct p2_run runs[] = {
        {"adam, 11 steps", false, false, 11, 9.02793065, 9.56242962, 0.904173399, 0.268001584},
        {"adam, 110000 steps", false, false, 110000, 90243.2753, 95662.5000, 18083.4431, 10853.7567},
        {"amsgrad, 110000 steps", true, true, 110000, 63.3955099, 1.67727523, 0.0955378003, 0.00106865814},
    };

    for (size_t i = 0; i < ARRAY_SIZE(runs); i++) {
        struct gd_step_sums sums = p2_simulate(&runs[i]);

        cr_expect(fabs(sums.A / runs[i].A - 1.0) < 1e-5, "%s: A %.9g", runs[i].name, sums.A);
        cr_expect(fabs(sums.B / runs[i].B - 1.0) < 1e-5, "%s: B %.9g", runs[i].name, sums.B);
        cr_expect(fabs(sums.C / runs[i].C - 1.0) < 1e-5, "%s: C %.9g", runs[i].name, sums.C);
        cr_expect(fabs(sums.D / runs[i].D - 1.0) < 1e-5, "%s: D %.9g", runs[i].name, sums.D);
    }
}

// ---- Dispatch -------------------------------------------------------------------------------------------------------

Test(kernels, select_finds_kernels_by_name) {
    const struct gd_kernels *kernels = NULL;

    cr_expect_eq(gd_kernels_select("scalar", &kernels), 0);
    cr_expect_eq(kernels, &gd_kernels_scalar);
}

Test(kernels, select_without_a_name_finds_some_kernels) {
    const struct gd_kernels *kernels = NULL;

    cr_assert_eq(gd_kernels_select(NULL, &kernels), 0);
    cr_assert_not_null(kernels);
    cr_expect_not_null(kernels->analyse);
}

Test(kernels, select_refuses_unknown_names_and_leaves_the_result_alone) {
    const char *const names[] = {"", "scala", "scalar ", "SCALAR", "abacus"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const struct gd_kernels *kernels = NULL;
        cr_expect_eq(gd_kernels_select(names[i], &kernels), -EINVAL, "\"%s\"", names[i]);
        cr_expect_null(kernels, "\"%s\"", names[i]);
    }
}
