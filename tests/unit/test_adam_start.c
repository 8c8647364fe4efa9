// The Adam family of a run whose optimiser state is handed over in mid-training: it goes on as if the steps before had
// been seen.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

#include "adam_cases.h"
#include "start_vector.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { STEPS = 100 };

// What an optimiser that keeps its state in float would hold.
static void start_group(struct pipeline *p, const struct textbook *book, const struct gd_adam_rates *rates,
                        size_t group) {
    const struct gd_adam_config *config = p->config;
    float v[GROUP_ELEMS], maximum[GROUP_ELEMS];

    for (size_t i = 0; i < group_elems[group]; i++) {
        v[i] = (float)((long double)config->initial_accumulator + book->coordinates[group][i].v);
        maximum[i] = (float)book->coordinates[group][i].maximum;
    }
    p->groups[group].lag = book->last_optimizer_step - book->t[group];
    gd_adam_start_group(config, &p->groups[group], book->last_optimizer_step, rates);
    if (book->t[group] == 0)
        return;
    gd_start_roots(v, (float)config->initial_accumulator, group_elems[group], p->root[0][group]);
    gd_start_maxima(maximum, p->root[0][group], (float)gd_adam_maximum_scale(config, rates->beta2, book->t[group]),
                    group_elems[group], p->maximum[0][group]);
}

static void start(struct pipeline *p, struct textbook *book, const struct gd_adam_config *config,
                  const struct gd_adam_rates *rates) {
    *p = (struct pipeline){.config = config};
    gd_adam_start(&p->state, book->last_optimizer_step);
    for (size_t group = 0; group < GROUPS; group++)
        start_group(p, book, rates, group);
    book->A = book->B = book->C = book->D = 0.0L; // the totals count from here
}

static void check_from(const struct scenario *scenario, uint64_t split) {
    static struct pipeline p;
    static struct textbook book;
    struct applied_step applied = {0};
    uint64_t random = split;

    book = (struct textbook){.config = &scenario->config};
    for (uint64_t step = 1; step <= split; step++) {
        make_step(scenario, step, &random, &applied);
        textbook_step(&book, &applied);
    }
    start(&p, &book, &scenario->config, &applied.rates);
    for (uint64_t step = split + 1; step <= split + STEPS; step++) {
        make_step(scenario, step, &random, &applied);
        struct gd_values values = run_step(&p, &applied, false);
        textbook_step(&book, &applied);
        check_step(scenario, &p, &book, &values, step);
        cr_expect_eq(gd_values_has(&values, GD_TAG_RMS), split >= 40, "%s, step %" PRIu64, scenario->name, step);
        cr_expect_eq(gd_values_has(&values, GD_TAG_OSCILLATION), step >= split + 16, "%s, step %" PRIu64,
                     scenario->name, step);
        if (step == split + 1) { // what moved between the two is small: much of it is the state's rounding
            expect_close(p.state.C, book.C, 1e-3, scenario->name, "C", step);
            expect_close(p.state.D, book.D, 1e-3, scenario->name, "D", step);
        }
    }
    expect_close(p.state.C, book.C, 2e-5, scenario->name, "C", split + STEPS);
    expect_close(p.state.D, book.D, 2e-5, scenario->name, "D", split + STEPS);
    cr_expect_eq(p.state.counted, STEPS, "%s", scenario->name);
}

// Every group is present in step 200 and in the next, between which no step is missing.
Test(adam_start, every_rule_goes_on_from_its_state) {
    for (size_t s = 0; s < n_scenarios; s++)
        if (scenarios[s].config.rule != GD_RULE_SGD)
            check_from(&scenarios[s], 200);
}

// With gaps, three steps are missing after step 198; else group 1 must be there, whose last step the rates are of.
Test(adam_start, missing_steps_right_after_the_state_was_taken_are_known) {
    for (size_t s = 0; s < n_scenarios; s++)
        if (scenarios[s].config.rule != GD_RULE_SGD && (scenarios[s].gaps || !scenarios[s].absent))
            check_from(&scenarios[s], 198);
}
