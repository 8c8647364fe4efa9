#include "adam_cases.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

const size_t group_elems[GROUPS] = {1, GROUP_ELEMS};

void expect_close(double actual, long double expected, double tolerance, const char *where, const char *what,
                  uint64_t step) {
    double error = (double)fabsl((long double)actual - expected);
    cr_assert(error <= tolerance * fabs((double)expected), "%s, step %" PRIu64 ": %s is %.9g, not %.9g", where, step,
              what, actual, (double)expected);
}

// ---- The daemon's way -----------------------------------------------------------------------------------------------

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

struct gd_values run_step(struct pipeline *p, const struct applied_step *applied, bool exact) {
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

void textbook_step(struct textbook *book, const struct applied_step *applied) {
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

const struct scenario scenarios[] = {
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

const size_t n_scenarios = ARRAY_SIZE(scenarios);

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

void make_step(const struct scenario *scenario, uint64_t step, uint64_t *random, struct applied_step *applied) {
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

void check_step(const struct scenario *scenario, const struct pipeline *p, const struct textbook *book,
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
