// A trainer that begins in mid-training hands over what its optimiser's state holds, through memory and inline.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon_process.h"
#include "event_values.h"
#include "scratch.h"
#include "trainer.h"

enum { CHECKPOINT = 3, STEPS = 6 }; // the steps that the vectors hold, and all of them

#define BETA2 0.5

static char directory[SCRATCH_PATH_BYTES];
static struct daemon_process daemon_process;
static struct trainer_warnings warnings;
static struct event_values whole, begun;

static void set_up(void) {
    scratch_make(directory);
    daemon_process_start(&daemon_process, directory);
}

static void tear_down(void) {
    event_values_free(&whole);
    event_values_free(&begun);
    daemon_process_stop(&daemon_process);
    scratch_remove(directory);
}

TestSuite(client_start, .init = set_up, .fini = tear_down, .timeout = 60);

// Adam's own, or AMSGrad's without a correction, after step CHECKPOINT.
struct moments {
    float v[TRAINER_NUMEL];
    float max[TRAINER_NUMEL];
};

static struct moments moments_at_checkpoint(void) {
    struct moments moments = {{0}, {0}};
    for (int64_t step = 1; step <= CHECKPOINT; step++) {
        float gradient[TRAINER_NUMEL];
        trainer_gradient(step, gradient);
        for (int i = 0; i < TRAINER_NUMEL; i++) {
            moments.v[i] += (float)(1.0 - BETA2) * (gradient[i] * gradient[i] - moments.v[i]);
            moments.max[i] = fmaxf(moments.max[i], moments.v[i]);
        }
    }
    return moments;
}

static struct gradientd_options options_for(enum gradientd_rule rule, const char *run) {
    static const struct gradientd_parameter_group parameter_groups[] = {{.beta2 = BETA2}};
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, run, &warnings);
    options.optimizer.rule = rule;
    options.optimizer.bias_correction = rule == GRADIENTD_ADAM ? GRADIENTD_NO_BIAS_CORRECTION : GRADIENTD_RULE_DEFAULT;
    options.optimizer.maximum_of = rule == GRADIENTD_AMSGRAD ? GRADIENTD_UNCORRECTED : (enum gradientd_maximum_of)0;
    options.parameter_groups = parameter_groups;
    return options;
}

static void train(const struct gradientd_options *options, int64_t first, char path[512]) {
    struct gradientd_run *run = trainer_open(options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    trainer_submit_steps(run, first, STEPS);
    trainer_close(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);
}

// The same from the checkpoint on, with these vectors; `max` may be NULL.
static void train_from_checkpoint(struct gradientd_options options, const float *v, const float *max, char path[512]) {
    const float *second_moment[] = {v, v + TRAINER_FIRST_NUMEL};
    const float *maximum[] = {max, max ? max + TRAINER_FIRST_NUMEL : NULL};
    options.first_step = CHECKPOINT + 1;
    options.start_optimizer_step = CHECKPOINT;
    options.start_second_moment = second_moment;
    options.start_second_moment_max = max ? maximum : NULL;
    train(&options, CHECKPOINT + 1, path);
}

static double value(const struct event_values *values, const char *tag, int64_t step) {
    const struct event_value *found = event_values_find(values, tag, step);
    cr_assert(found, "%s has no value at step %lld", tag, (long long)step);
    return (double)found->value;
}

static void expect_near(double actual, double expected, const char *what) {
    cr_assert(fabs(actual - expected) <= 1e-5 * fabs(expected), "%s is %.9g, not %.9g", what, actual, expected);
}

// From the first step on the values are those of the run that saw all steps; sums lack what was before.
static void expect_continued(void) {
    for (int64_t step = CHECKPOINT + 1; step <= STEPS; step++) {
        expect_near(value(&begun, "adam/step_size_mean", step), value(&whole, "adam/step_size_mean", step), "mean");
        for (const char *sum = "ABCD"; *sum; sum++) {
            char tag[16];
            snprintf(tag, sizeof(tag), "adam/%c", *sum);
            double all = value(&whole, tag, step); // a float, as is what is taken from it
            double added = all - value(&whole, tag, CHECKPOINT);
            double actual = value(&begun, tag, step);
            cr_assert(fabs(actual - added) <= 1e-6 * all, "%s at step %lld is %.9g, not %.9g", tag, (long long)step,
                      actual, added);
        }
        expect_near(value(&begun, "gradientd/observed_fraction", step), 1.0, "observed_fraction");
    }
}

Test(client_start, adam_goes_on_exactly) {
    char path[512];
    struct moments moments = moments_at_checkpoint();
    struct gradientd_options options = options_for(GRADIENTD_ADAM, "whole");
    train(&options, 1, path);
    event_values_read(path, &whole);
    train_from_checkpoint(options_for(GRADIENTD_ADAM, "begun"), moments.v, NULL, path);
    event_values_read(path, &begun);
    expect_continued();
}

Test(client_start, amsgrad_goes_on_exactly) {
    char path[512];
    struct moments moments = moments_at_checkpoint();
    struct gradientd_options options = options_for(GRADIENTD_AMSGRAD, "whole");
    train(&options, 1, path);
    event_values_read(path, &whole);
    train_from_checkpoint(options_for(GRADIENTD_AMSGRAD, "begun"), moments.v, moments.max, path);
    event_values_read(path, &begun);
    expect_continued();
}

// C at the first step is |e - e_before|, and e_before grows with the rate that was before.
Test(client_start, rate_of_the_step_before_counts) {
    static const struct gradientd_parameter_group parameter_groups[] = {{.beta2 = BETA2, .start_learning_rate = 1e6}};
    char path[512];
    struct moments moments = moments_at_checkpoint();
    struct gradientd_options options = options_for(GRADIENTD_ADAM, "begun");
    options.parameter_groups = parameter_groups;
    train_from_checkpoint(options, moments.v, NULL, path);
    event_values_read(path, &begun);
    double expected = 0.0;
    for (int i = 0; i < TRAINER_NUMEL; i++)
        expected += 1e6 / sqrt((double)moments.v[i]);
    expect_near(value(&begun, "adam/C", CHECKPOINT + 1), expected, "adam/C");
}

// A group without a vector has taken no step: its effective step was not there before.
Test(client_start, group_without_a_vector_starts_at_zero) {
    char zeros_path[512], none_path[512];
    const float *none[] = {NULL, NULL};
    const float zeros[TRAINER_NUMEL] = {0};
    struct gradientd_options options = options_for(GRADIENTD_ADAM, "zeros");
    train_from_checkpoint(options, zeros, NULL, zeros_path);
    options.run = "none";
    options.first_step = CHECKPOINT + 1;
    options.start_optimizer_step = CHECKPOINT;
    options.start_second_moment = none;
    train(&options, CHECKPOINT + 1, none_path);
    scratch_expect_same(none_path, zeros_path);
}

// The vectors are floats beside elements of two bytes; inline they come through the same place.
Test(client_start, every_transport_writes_the_same_file) {
    static const char *const names[] = {"memory", "raw", "deflated"};
    char paths[3][512];
    struct moments moments = moments_at_checkpoint();
    for (int transport = GRADIENTD_SHARED_MEMORY; transport <= GRADIENTD_INLINE_DEFLATED; transport++) {
        struct gradientd_options options = options_for(GRADIENTD_AMSGRAD, names[transport]);
        const float *second_moment[] = {moments.v, moments.v + TRAINER_FIRST_NUMEL};
        const float *maximum[] = {moments.max, moments.max + TRAINER_FIRST_NUMEL};
        options.transport = (enum gradientd_transport)transport;
        options.element_type = GRADIENTD_BF16;
        options.first_step = CHECKPOINT + 1;
        options.start_optimizer_step = CHECKPOINT;
        options.start_second_moment = second_moment;
        options.start_second_moment_max = maximum;
        struct gradientd_run *run = trainer_open(&options);
        snprintf(paths[transport], sizeof(paths[transport]), "%s", gradientd_event_path(run));
        for (int64_t i = CHECKPOINT + 1; i <= STEPS; i++) {
            float gradient[TRAINER_NUMEL];
            uint16_t halves[TRAINER_NUMEL]; // the upper ones: all that these values have
            struct gradientd_step step = trainer_step(i);
            trainer_gradient(i, gradient);
            for (int e = 0; e < TRAINER_NUMEL; e++)
                memcpy(&halves[e], (const uint8_t *)&gradient[e] + 2, 2);
            const void *gradients[] = {halves, halves + TRAINER_FIRST_NUMEL};
            cr_assert_eq(gradientd_submit(run, &step, gradients), GRADIENTD_OK, "%s", gradientd_last_error(run));
        }
        trainer_close(run);
        scratch_expect_same(paths[transport], paths[0]);
    }
    train_from_checkpoint(options_for(GRADIENTD_AMSGRAD, "floats"), moments.v, moments.max, paths[1]);
    scratch_expect_same(paths[0], paths[1]);
}

// More than a socket holds: opening waits until it has left, so that the first step finds room.
Test(client_start, large_vectors_leave_before_the_first_step) {
    enum { NUMEL = 1 << 20 };
    static float v[NUMEL];
    static const struct gradientd_group groups[] = {{.name = "large", .numel = NUMEL}};
    const float *second_moment[] = {v};
    struct gradientd_options options = options_for(GRADIENTD_ADAM, "large");
    options.groups = groups;
    options.n_groups = 1;
    options.transport = GRADIENTD_INLINE;
    options.max_stall = 0.0;
    options.start_optimizer_step = 1;
    options.start_second_moment = second_moment;
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    const void *gradients[] = {v};
    cr_assert_eq(gradientd_submit(run, &step, gradients), GRADIENTD_OK);
    trainer_close(run);
}

// Inline, opening may learn what the daemon says of the vectors; no file is left behind then.
Test(client_start, refused_vector_is_said_by_open) {
    enum { NUMEL = 1 << 22 };
    static const struct gradientd_group groups[] = {{.name = "large", .numel = NUMEL, .step_lag = CHECKPOINT + 1}};
    const float *second_moment[] = {NULL};
    char logdir[SCRATCH_PATH_BYTES + 16];
    snprintf(logdir, sizeof(logdir), "%s/refused", directory);
    struct gradientd_options options = options_for(GRADIENTD_ADAM, NULL);
    options.logdir = logdir;
    options.groups = groups;
    options.n_groups = 1;
    options.transport = GRADIENTD_INLINE;
    options.start_optimizer_step = CHECKPOINT;
    options.start_second_moment = second_moment;
    struct gradientd_run *run;
    struct gradientd_error error;
    size_t fds = scratch_count_fds(0);
    cr_assert_eq(gradientd_open(&options, &run, &error), -EBADMSG, "%s", error.text);
    cr_assert(strstr(error.text, "optimizer_step is 3") && strstr(error.text, "step_lag"), "%s", error.text);
    cr_assert_eq(rmdir(logdir), 0, "a file is left");
    cr_assert_eq(scratch_count_fds(0), fds);
}

Test(client_start, what_the_rule_does_not_have_is_refused) {
    const float zeros[TRAINER_NUMEL] = {0};
    const float *vector[] = {zeros, zeros + TRAINER_FIRST_NUMEL};
    static const struct {
        enum gradientd_rule rule;
        bool has_max;
    } cases[] = {{GRADIENTD_SGD, false}, {GRADIENTD_OTHER, false}, {GRADIENTD_AMSGRAD, false}, {GRADIENTD_ADAM, true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gradientd_options options = options_for(cases[i].rule, "refused");
        options.optimizer.bias_correction = GRADIENTD_RULE_DEFAULT;
        options.start_optimizer_step = CHECKPOINT;
        options.start_second_moment = vector;
        options.start_second_moment_max = cases[i].has_max ? vector : NULL;
        struct gradientd_run *run;
        struct gradientd_error error;
        cr_assert_eq(gradientd_open(&options, &run, &error), -EBADMSG, "case %zu: %s", i, error.text);
        cr_assert(strstr(error.text, "start"), "%s", error.text);
    }
}
