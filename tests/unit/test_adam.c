// The Adam family against textbook formulas: when each rule's values begin, and what they are.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

#include "adam_cases.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { STEPS = 400 };

Test(adam, every_rule_follows_its_textbook_formula) {
    for (size_t s = 0; s < n_scenarios; s++) {
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
    for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_OTHER; rule++) {
        struct gd_adam_config config = {.rule = rule};
        bool keeps_none = rule == GD_RULE_SGD || rule == GD_RULE_OTHER;
        uint32_t expected = keeps_none ? 0 : rule == GD_RULE_AMSGRAD ? 2 : 1;
        cr_expect_eq(gd_adam_state_arrays(&config), expected, "rule %d", (int)rule);
        cr_expect_eq(gd_adam_has_second_moment(&config), !keeps_none, "rule %d", (int)rule);
        cr_expect_eq(gd_adam_has_effective_step(&config), rule != GD_RULE_OTHER, "rule %d", (int)rule);
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
        {"other", {.rule = GD_RULE_OTHER}, 0.75, false, FOREVER},
        {"other from the start", {.rule = GD_RULE_OTHER}, 0.75, true, FOREVER},
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
        {"other", {.rule = GD_RULE_OTHER}, 0},
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
