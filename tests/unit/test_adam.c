// The Adam family: the kernel's step as diagnostics/adam.c derives it, applied to vectors, against the textbook
// formulas in long double; then when its values begin.
#include "diagnostics/adam.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdalign.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum {
    GROUPS = 2,
    GROUP_ELEMS = 48, // of group 1; group 0 has one element, whose A is e_t itself
    STEPS = 400,
};

static const size_t group_elems[GROUPS] = {1, GROUP_ELEMS};

static void expect_close(double actual, long double expected, double tolerance, const char *where, const char *what,
                         uint64_t step) {
    double error = (double)fabsl((long double)actual - expected);
    cr_assert(error <= tolerance * fabs((double)expected), "%s, step %" PRIu64 ": %s is %.9g, not %.9g", where, step,
              what, actual, (double)expected);
}

// ---- The daemon's way -----------------------------------------------------------------------------------------------

struct pipeline {
    const struct gd_adam_config *config;
    struct gd_adam_state state;
    struct gd_adam_group groups[GROUPS];
    int half[GROUPS];
    alignas(64) float root[2][GROUPS][GROUP_ELEMS];
    alignas(64) float maximum[2][GROUPS][GROUP_ELEMS];
    struct gd_step_sums group_sums[GROUPS]; // of the last step
    struct gd_step_sums sums;
};

// One applied step as a trainer makes it.
struct applied_step {
    uint64_t optimizer_step;
    bool present[GROUPS];
    float gradient[GROUPS][GROUP_ELEMS];
    struct gd_adam_rates rates;
};

static void run_group(struct pipeline *p, const struct gd_adam_step *step, const struct applied_step *applied,
                      size_t group) {
    struct gd_adam_group_step group_step = gd_adam_step_group(p->config, &p->groups[group], step, &applied->rates);
    struct gd_chunk chunk = {.elems = group_elems[group], .type = GD_F32, .gradient = applied->gradient[group]};
    int half = p->half[group];

    if (gd_adam_has_second_moment(p->config)) {
        chunk.step = &group_step.kernel;
        chunk.root = p->root[half][group];
        chunk.root_next = p->root[1 - half][group];
        p->half[group] = 1 - half;
    }
    if (gd_adam_state_arrays(p->config) > 1) {
        chunk.maximum = p->maximum[half][group];
        chunk.maximum_next = p->maximum[1 - half][group];
    }
    gd_kernels_scalar.analyse(&chunk, &p->group_sums[group]);
    gd_adam_complete_sums(p->config, &group_step, &p->group_sums[group]);
    gd_step_sums_merge(&p->sums, &p->group_sums[group], 0);
}

static struct gd_values run_step(struct pipeline *p, const struct applied_step *applied, bool exact) {
    struct gd_values values = {0};
    struct gd_adam_step step =
        gd_adam_begin_step(p->config, &p->state, applied->optimizer_step, exact, applied->rates.beta2);

    gd_step_sums_init(&p->sums);
    for (size_t group = 0; group < GROUPS; group++) {
        if (applied->present[group])
            run_group(p, &step, applied, group);
        else
            gd_adam_skip_group(p->config, &p->groups[group], &step);
    }
    gd_adam_end_step(&p->state, &step, &p->sums, &values);
    return values;
}

// ---- The textbook's way, from docs of what is computed --------------------------------------------------------------

struct coordinate {
    bool counted; // has been active
    long double v, maximum, step_size;
};

struct textbook {
    const struct gd_adam_config *config;
    uint64_t last_optimizer_step; // of the run, 0: none
    uint64_t t[GROUPS];           // each group's own
    bool seen[GROUPS];
    struct coordinate coordinates[GROUPS][GROUP_ELEMS];
    long double A, B, C, D;
    // of the last step
    long double relative_square, step_size_min, step_A;
    uint64_t active, elements;
};

// vhat of a coordinate whose gradient is g, after k steps that were not seen.
static long double move_vhat(const struct gd_adam_config *config, struct coordinate *c, long double g, uint64_t t,
                             uint64_t k, long double beta2) {
    const long double seen = (long double)(k + 1), square = g * g;
    const long double kept = powl(beta2, seen), correction = 1.0L - powl(beta2, (long double)t);

    switch (config->rule) {
    case GD_RULE_SGD:
        return 1.0L;
    case GD_RULE_ADAGRAD:
        c->v += seen * square;
        return (long double)config->initial_accumulator + c->v;
    case GD_RULE_ADAFOM:
        c->v += seen / (long double)t * (square - c->v);
        return c->v;
    case GD_RULE_AMSGRAD:
        c->v = kept * c->v + (1.0L - kept) * square;
        if (config->maximum_of == GD_MAXIMUM_CORRECTED) {
            c->maximum = fmaxl(c->maximum, c->v / correction);
            return c->maximum;
        }
        c->maximum = fmaxl(c->maximum, c->v);
        return config->maximum_of == GD_MAXIMUM_UNCORRECTED ? c->maximum : c->maximum / correction;
    default: // adam, adamw, rmsprop
        c->v = kept * c->v + (1.0L - kept) * square;
        return config->bias_correction ? c->v / correction : c->v;
    }
}

static void step_coordinate(struct textbook *book, struct coordinate *c, long double g, uint64_t t, uint64_t k,
                            bool comparable, const struct gd_adam_rates *rates) {
    const struct gd_adam_config *config = book->config;
    const bool sgd = config->rule == GD_RULE_SGD;
    const long double eps = (long double)rates->eps;
    if (!c->counted && g == 0.0L && !sgd)
        return;

    long double vhat = move_vhat(config, c, g, t, k, (long double)rates->beta2);
    long double rate = (long double)rates->learning_rate;
    if (config->rule == GD_RULE_ADAGRAD)
        rate /= 1.0L + (long double)(t - 1) * (long double)config->learning_rate_decay;
    long double e = sgd ? rate : rate / (sqrtl(vhat + (long double)config->eps_root) + eps);
    if (g != 0.0L) {
        book->active++;
        book->A += e;
        book->step_A += e;
        book->B += e * g * (e * g);
        book->step_size_min = fminl(book->step_size_min, e);
        book->relative_square += g * g / fmaxl(vhat, eps * eps);
        if (comparable && (c->counted || sgd)) {
            book->C += fabsl(e - c->step_size);
            book->D += (e - c->step_size) * (e - c->step_size);
        }
    }
    c->counted |= g != 0.0L;
    c->step_size = e;
}

static void textbook_step(struct textbook *book, const struct applied_step *applied) {
    uint64_t k = applied->optimizer_step - book->last_optimizer_step - 1;
    book->last_optimizer_step = applied->optimizer_step;
    book->relative_square = book->step_A = 0.0L;
    book->step_size_min = HUGE_VALL;
    book->active = book->elements = 0;
    for (size_t group = 0; group < GROUPS; group++) {
        if (applied->present[group] || book->config->absent_counts)
            book->t[group] += k + 1;
        if (!applied->present[group])
            continue;
        book->elements += group_elems[group];
        for (size_t i = 0; i < group_elems[group]; i++)
            step_coordinate(book, &book->coordinates[group][i], (long double)applied->gradient[group][i],
                            book->t[group], k, book->seen[group] && k == 0, &applied->rates);
        book->seen[group] = true;
    }
}

// ---- Every rule and variant -----------------------------------------------------------------------------------------

enum schedule { CONSTANT, INVERSE_ROOT, SOMETIMES_ZERO };

struct scenario {
    const char *name;
    struct gd_adam_config config;
    double beta2, eps;
    enum schedule schedule;
    bool changing; // beta2 and eps move from step to step
    bool gaps;     // every tenth step comes after three that were not seen
    bool absent;   // group 1 is absent in two steps of five
    bool sparse;   // two of three gradients are 0
};

#define ADAM .rule = GD_RULE_ADAM, .bias_correction = true
#define AMSGRAD(which) .rule = GD_RULE_AMSGRAD, .maximum_of = GD_MAXIMUM_##which

static const struct scenario scenarios[] = {
    {"sgd", {.rule = GD_RULE_SGD}, .schedule = INVERSE_ROOT},
    {"sgd, constant", {.rule = GD_RULE_SGD}, .schedule = CONSTANT},
    {"sgd, rate sometimes 0, gaps, absent, sparse",
     {.rule = GD_RULE_SGD},
     .schedule = SOMETIMES_ZERO,
     .gaps = true,
     .absent = true,
     .sparse = true},
    {"adam", {ADAM}, .beta2 = 0.9, .eps = 1e-8},
    {"adam, b2 0.999", {ADAM}, .beta2 = 0.999, .eps = 1e-8},
    {"adam, b2 0", {ADAM}, .beta2 = 0.0, .eps = 1e-3},
    {"adam, eps 0", {ADAM}, .beta2 = 0.9, .eps = 0.0},
    {"adam, large eps", {ADAM}, .beta2 = 0.9, .eps = 0.3},
    {"adam, eps inside", {ADAM, .eps_root = 0.1}, .beta2 = 0.9, .eps = 0.0},
    {"adam, eps on both sides", {ADAM, .eps_root = 0.1}, .beta2 = 0.9, .eps = 0.2},
    {"adam, uncorrected", {.rule = GD_RULE_ADAM}, .beta2 = 0.9, .eps = 1e-8},
    {"adam, 1/sqrt(t)", {ADAM}, .beta2 = 0.9, .eps = 1e-8, .schedule = INVERSE_ROOT},
    {"adam, rate sometimes 0", {ADAM}, .beta2 = 0.9, .eps = 1e-8, .schedule = SOMETIMES_ZERO},
    {"adam, sparse", {ADAM}, .beta2 = 0.9, .eps = 1e-8, .sparse = true},
    {"adam, gaps", {ADAM}, .beta2 = 0.9, .eps = 1e-2, .gaps = true},
    {"adam, absent", {ADAM}, .beta2 = 0.99, .eps = 1e-2, .absent = true},
    {"adam, absent counts", {ADAM, .absent_counts = true}, .beta2 = 0.99, .eps = 1e-2, .absent = true},
    {"adam, changing rates",
     {ADAM, .eps_root = 0.01},
     .beta2 = 0.9,
     .eps = 0.05,
     .changing = true,
     .schedule = INVERSE_ROOT},
    {"adam, everything",
     {ADAM, .eps_root = 0.01},
     .beta2 = 0.9,
     .eps = 0.05,
     .changing = true,
     .schedule = SOMETIMES_ZERO,
     .gaps = true,
     .absent = true,
     .sparse = true},
    {"adamw", {.rule = GD_RULE_ADAMW, .bias_correction = true}, .beta2 = 0.95, .eps = 1e-8},
    {"rmsprop", {.rule = GD_RULE_RMSPROP}, .beta2 = 0.9, .eps = 1e-8},
    {"rmsprop, corrected", {.rule = GD_RULE_RMSPROP, .bias_correction = true}, .beta2 = 0.9, .eps = 1e-8},
    {"rmsprop, eps inside, gaps", {.rule = GD_RULE_RMSPROP, .eps_root = 1e-2}, .beta2 = 0.9, .eps = 0.0, .gaps = true},
    {"amsgrad, raw then corrected", {AMSGRAD(RAW_THEN_CORRECTED)}, .beta2 = 0.9, .eps = 1e-8},
    {"amsgrad, corrected", {AMSGRAD(CORRECTED)}, .beta2 = 0.9, .eps = 1e-8},
    {"amsgrad, uncorrected", {AMSGRAD(UNCORRECTED)}, .beta2 = 0.9, .eps = 1e-8},
    {"amsgrad, raw then corrected, everything",
     {AMSGRAD(RAW_THEN_CORRECTED), .eps_root = 0.01},
     .beta2 = 0.9,
     .eps = 0.05,
     .changing = true,
     .schedule = INVERSE_ROOT,
     .gaps = true,
     .absent = true,
     .sparse = true},
    {"amsgrad, corrected, everything",
     {AMSGRAD(CORRECTED), .eps_root = 0.01, .absent_counts = true},
     .beta2 = 0.9,
     .eps = 0.05,
     .changing = true,
     .schedule = INVERSE_ROOT,
     .gaps = true,
     .absent = true,
     .sparse = true},
    {"adagrad", {.rule = GD_RULE_ADAGRAD}, .beta2 = 0.0, .eps = 1e-10},
    {"adagrad, accumulator", {.rule = GD_RULE_ADAGRAD, .initial_accumulator = 0.1}, .beta2 = 0.0, .eps = 1e-10},
    {"adagrad, decay", {.rule = GD_RULE_ADAGRAD, .learning_rate_decay = 0.01}, .beta2 = 0.0, .eps = 1e-10},
    {"adagrad, accumulator, decay, eps inside",
     {.rule = GD_RULE_ADAGRAD, .initial_accumulator = 0.5, .learning_rate_decay = 0.1, .eps_root = 0.1},
     .beta2 = 0.0,
     .eps = 0.2},
    {"adagrad, everything",
     {.rule = GD_RULE_ADAGRAD, .initial_accumulator = 0.5, .learning_rate_decay = 0.1},
     .beta2 = 0.0,
     .eps = 0.2,
     .schedule = SOMETIMES_ZERO,
     .gaps = true,
     .absent = true,
     .sparse = true},
    {"adafom", {.rule = GD_RULE_ADAFOM}, .beta2 = 0.0, .eps = 1e-8},
    {"adafom, everything",
     {.rule = GD_RULE_ADAFOM},
     .beta2 = 0.0,
     .eps = 0.1,
     .schedule = INVERSE_ROOT,
     .gaps = true,
     .absent = true,
     .sparse = true},
};

static double rate_at(enum schedule schedule, uint64_t step) {
    switch (schedule) {
    case CONSTANT:
        return 0.01;
    case INVERSE_ROOT:
        return 0.1 / sqrt((double)step);
    default:
        return step % 7 == 1 ? 0.0 : 0.01; // from the first step on
    }
}

static void make_step(const struct scenario *scenario, uint64_t step, uint64_t *random, struct applied_step *applied) {
    applied->optimizer_step += scenario->gaps && step % 10 == 9 ? 4 : 1;
    applied->rates = (struct gd_adam_rates){rate_at(scenario->schedule, step), scenario->beta2, scenario->eps};
    if (scenario->changing) {
        applied->rates.beta2 += 0.01 * (double)(step % 6);
        applied->rates.eps *= 1.0 + (double)(step % 4);
    }
    applied->present[0] = true;
    applied->present[1] = !(scenario->absent && (step % 5 == 2 || step % 5 == 3));
    for (size_t group = 0; group < GROUPS; group++)
        for (size_t i = 0; i < group_elems[group]; i++) {
            float g = random_gradient(random);
            applied->gradient[group][i] = scenario->sparse && next_random(random) % 3 > 0 ? 0.0f : g;
        }
}

static void check_step(const struct scenario *scenario, const struct pipeline *p, const struct textbook *book,
                       const struct gd_values *values, uint64_t step) {
    const double tolerance = 1e-5;
    const struct {
        const char *name;
        enum gd_tag tag;
        long double expected;
    } totals[] = {
        {"A", GD_TAG_A, book->A},
        {"B", GD_TAG_B, book->B},
        {"active_fraction", GD_TAG_ACTIVE_FRACTION, (long double)book->active / (long double)book->elements},
    };

    for (size_t i = 0; i < ARRAY_SIZE(totals); i++)
        expect_close(values->value[totals[i].tag], totals[i].expected, tolerance, scenario->name, totals[i].name, step);
    if (p->group_sums[0].active > 0)
        expect_close(p->group_sums[0].A, book->coordinates[0][0].step_size, tolerance, scenario->name, "e_t", step);
    if (book->active > 0) {
        expect_close(values->value[GD_TAG_STEP_SUM_A], book->step_A, tolerance, scenario->name, "step A", step);
        expect_close(values->value[GD_TAG_STEP_SIZE_MIN], book->step_size_min, tolerance, scenario->name, "least e_t",
                     step);
        expect_close(values->value[GD_TAG_STEP_SIZE_MEAN], book->step_A / (long double)book->active, tolerance,
                     scenario->name, "mean e_t", step);
    }
    if (gd_values_has(values, GD_TAG_RMS))
        expect_close(values->value[GD_TAG_RMS], sqrtl(book->relative_square / (long double)book->elements), tolerance,
                     scenario->name, "rms", step);
}

Test(adam, every_rule_follows_its_textbook_formula) {
    for (size_t s = 0; s < ARRAY_SIZE(scenarios); s++) {
        const struct scenario *scenario = &scenarios[s];
        static struct pipeline p;
        static struct textbook book;
        struct applied_step applied = {0};
        uint64_t random = s;

        p = (struct pipeline){.config = &scenario->config};
        book = (struct textbook){.config = &scenario->config};
        for (uint64_t step = 1; step <= STEPS; step++) {
            make_step(scenario, step, &random, &applied);
            struct gd_values values = run_step(&p, &applied, true);
            textbook_step(&book, &applied);
            check_step(scenario, &p, &book, &values, step);
        }
        cr_expect_eq(p.state.counted, STEPS, "%s", scenario->name);
        expect_close(p.state.C, book.C, 1e-5, scenario->name, "C", STEPS);
        expect_close(p.state.D, book.D, 1e-5, scenario->name, "D", STEPS);
        cr_expect(scenario->config.rule == GD_RULE_SGD || p.state.C > 0.0, "%s", scenario->name);
    }
}

Test(adam, the_number_of_state_arrays_is_the_rules) {
    for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_ADAFOM; rule++) {
        struct gd_adam_config config = {.rule = rule};
        uint32_t expected = rule == GD_RULE_SGD ? 0 : rule == GD_RULE_AMSGRAD ? 2 : 1;
        cr_expect_eq(gd_adam_state_arrays(&config), expected, "rule %d", (int)rule);
        cr_expect_eq(gd_adam_has_second_moment(&config), rule != GD_RULE_SGD, "rule %d", (int)rule);
    }
}

// ---- Golden values --------------------------------------------------------------------------------------------------

// Problem P2 of the golden values: ten steps of eleven pull away from 0, the eleventh back, eleven times as hard.
static double p2_gradient(uint64_t t, double x) {
    double inner = fabs(x) <= 1.0 ? x : x > 0.0 ? 1.0 : -1.0;
    return (t - 1) % 11 == 0 ? 11.0 * inner : -inner;
}

static struct gd_adam_state run_p2(const struct gd_adam_config *config, bool inverse_root, uint64_t steps) {
    const double beta2 = 0.1;
    static struct pipeline p;
    double x = 2.0, v = 0.0, vhat = 0.0;

    p = (struct pipeline){.config = config};
    for (uint64_t t = 1; t <= steps; t++) {
        double g = p2_gradient(t, x);
        double rate = inverse_root ? 1.0 / sqrt((double)t) : 1.0;
        struct applied_step applied = {
            .optimizer_step = t,
            .present = {true, false},
            .gradient = {{(float)g}},
            .rates = {.learning_rate = rate, .beta2 = beta2},
        };
        run_step(&p, &applied, true);
        v = beta2 * v + (1.0 - beta2) * g * g;
        vhat = config->rule == GD_RULE_AMSGRAD && vhat > v ? vhat : v;
        x -= rate / sqrt(vhat) * g;
    }
    return p.state;
}

Test(adam, golden_values_of_problem_p2) {
    const struct {
        const char *name;
        struct gd_adam_config config;
        bool inverse_root;
        uint64_t steps;
        double A, B, C, D;
    } cases[] = {
        {"adam", {.rule = GD_RULE_ADAM}, false, 11, 9.02793065, 9.56242962, 0.904173399, 0.268001584},
        {"adam", {.rule = GD_RULE_ADAM}, false, 110000, 90243.2753, 95662.5000, 18083.4431, 10853.7567},
        {"amsgrad", {AMSGRAD(UNCORRECTED)}, true, 110000, 63.3955099, 1.67727523, 0.0955378003, 0.00106865814},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_adam_state state = run_p2(&cases[i].config, cases[i].inverse_root, cases[i].steps);
        expect_close(state.A, (long double)cases[i].A, 1e-5, cases[i].name, "A", cases[i].steps);
        expect_close(state.B, (long double)cases[i].B, 1e-5, cases[i].name, "B", cases[i].steps);
        expect_close(state.C, (long double)cases[i].C, 1e-5, cases[i].name, "C", cases[i].steps);
        expect_close(state.D, (long double)cases[i].D, 1e-5, cases[i].name, "D", cases[i].steps);
    }
}

// ---- Silence --------------------------------------------------------------------------------------------------------

static struct applied_step ones(uint64_t optimizer_step, double beta2) {
    struct applied_step applied = {
        .optimizer_step = optimizer_step,
        .present = {true, true},
        .rates = {.learning_rate = 0.1, .beta2 = beta2, .eps = 1e-8},
    };
    for (size_t group = 0; group < GROUPS; group++)
        for (size_t i = 0; i < group_elems[group]; i++)
            applied.gradient[group][i] = 1.0f;
    return applied;
}

static bool has_adam_tag(const struct gd_values *values) {
    for (unsigned tag = GD_TAG_B_OVER_A; tag <= GD_TAG_STEP_SUM_D; tag++)
        if (gd_values_has(values, (enum gd_tag)tag))
            return true;
    return false;
}

Test(adam, a_second_moment_met_in_mid_training_is_given_time_to_forget) {
    enum { FOREVER = 5000 };
    const struct {
        const char *name;
        struct gd_adam_config config;
        double beta2;
        bool exact;
        uint64_t silent;
    } cases[] = {
        {"adam", {ADAM}, 0.75, false, 12},
        {"adam", {ADAM}, 0.5, false, 6},
        {"adam", {ADAM}, 0.999, false, 3000},
        {"adam from the start", {ADAM}, 0.999, true, 0},
        {"adamw", {.rule = GD_RULE_ADAMW, .bias_correction = true}, 0.75, false, 12},
        {"rmsprop", {.rule = GD_RULE_RMSPROP}, 0.75, false, 12},
        {"amsgrad", {AMSGRAD(RAW_THEN_CORRECTED)}, 0.75, false, FOREVER},
        {"amsgrad from the start", {AMSGRAD(RAW_THEN_CORRECTED)}, 0.75, true, 0},
        {"adagrad", {.rule = GD_RULE_ADAGRAD}, 0.75, false, FOREVER},
        {"adagrad from the start", {.rule = GD_RULE_ADAGRAD}, 0.75, true, 0},
        {"adafom", {.rule = GD_RULE_ADAFOM}, 0.75, false, FOREVER},
        {"adafom from the start", {.rule = GD_RULE_ADAFOM}, 0.75, true, 0},
        {"sgd", {.rule = GD_RULE_SGD}, 0.75, false, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static struct pipeline p;
        uint64_t silent = 0;
        p = (struct pipeline){.config = &cases[i].config};
        for (uint64_t step = 0; step < FOREVER; step++) {
            struct applied_step applied = ones(cases[i].exact ? step + 1 : step + 70000, cases[i].beta2);
            // Only the first step decides: later ones may not reopen or extend the silence.
            struct gd_values values = run_step(&p, &applied, step == 0 ? cases[i].exact : step % 2 == 0);
            if (has_adam_tag(&values))
                break;
            silent++;
        }
        cr_expect_eq(silent, cases[i].silent, "%s, b2 %g: %" PRIu64 " steps", cases[i].name, cases[i].beta2, silent);
        cr_expect_eq(p.state.counted, cases[i].silent < FOREVER, "%s", cases[i].name);
        cr_expect_eq(p.state.A > 0.0, cases[i].silent < FOREVER, "%s", cases[i].name);
    }
}

// Behind the silence the state moves: with it over, the effective step is that of a filled second moment.
Test(adam, the_state_moves_while_the_family_is_silent) {
    const struct gd_adam_config config = {ADAM};
    static struct pipeline p;
    struct gd_values values = {0};

    p = (struct pipeline){.config = &config};
    for (uint64_t step = 0; step <= 12; step++) {
        struct applied_step applied = ones(70000 + step, 0.75);
        values = run_step(&p, &applied, false);
    }
    double v = 1.0 - pow(0.75, 13);
    double e = 0.1 / (sqrt(v) + 1e-8);
    double e_before = 0.1 / (sqrt(1.0 - pow(0.75, 12)) + 1e-8);
    expect_close(values.value[GD_TAG_STEP_SIZE_MEAN], (long double)e, 1e-6, "adam", "e_t", 13);
    expect_close(values.value[GD_TAG_C], (GROUP_ELEMS + 1) * (long double)(e_before - e), 1e-5, "adam", "C", 13);
}

Test(adam, rms_waits_for_an_uncorrected_moment_to_fill) {
    const struct {
        const char *name;
        struct gd_adam_config config;
        uint64_t first; // applied step with a value, 0: none
    } cases[] = {
        {"sgd", {.rule = GD_RULE_SGD}, 0},
        {"adam", {ADAM}, 1},
        {"adam, uncorrected", {.rule = GD_RULE_ADAM}, 12},
        {"rmsprop", {.rule = GD_RULE_RMSPROP}, 12},
        {"amsgrad, raw then corrected", {AMSGRAD(RAW_THEN_CORRECTED)}, 1},
        {"amsgrad, corrected", {AMSGRAD(CORRECTED)}, 1},
        {"amsgrad, uncorrected", {AMSGRAD(UNCORRECTED)}, 12},
        {"adagrad", {.rule = GD_RULE_ADAGRAD}, 1},
        {"adafom", {.rule = GD_RULE_ADAFOM}, 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static struct pipeline p;
        uint64_t first = 0;
        p = (struct pipeline){.config = &cases[i].config};
        for (uint64_t step = 1; step <= 100; step++) {
            struct applied_step applied = ones(step, 0.75);
            struct gd_values values = run_step(&p, &applied, true);
            if (first == 0 && gd_values_has(&values, GD_TAG_RMS))
                first = step;
        }
        cr_expect_eq(first, cases[i].first, "%s: from step %" PRIu64, cases[i].name, first);
    }
}
