// The C client without shared memory: the files are the same, and nothing waits for a daemon that does not read.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

enum { LARGE_NUMEL = 1 << 20, STEPS = 40, LARGE_STEPS = 6 }; // 4 MiB: many times what a socket holds

static struct trainer_warnings warnings;
static float large[LARGE_NUMEL];

TestSuite(client_inline, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static struct gradientd_options options_for(enum gradientd_transport transport, const char *run) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, run, &warnings);
    options.transport = transport;
    return options;
}

// One group that no socket's buffer holds.
static struct gradientd_options large_options_for(enum gradientd_transport transport, const char *run) {
    static const struct gradientd_group groups[] = {{.name = "large", .numel = LARGE_NUMEL}};
    struct gradientd_options options = options_for(transport, run);
    options.groups = groups;
    options.n_groups = 1;
    return options;
}

// Noise: deflated it is smaller, but not by much.
static void large_gradient(int64_t step, float *gradient) {
    uint32_t random = (uint32_t)step;
    for (int64_t i = 0; i < LARGE_NUMEL; i++) {
        random = random * UINT32_C(1664525) + UINT32_C(1013904223);
        gradient[i] = (float)((int)(random >> 8) - (1 << 23)) * 0x1p-23f;
    }
}

static int submit_large(struct gradientd_run *run, int64_t i) {
    struct gradientd_step step = trainer_step(i);
    large_gradient(i, large);
    const void *gradients[] = {large};
    return gradientd_submit(run, &step, gradients);
}

static int commit_large(struct gradientd_run *run, int64_t i) {
    struct gradientd_step step = trainer_step(i);
    float *elements = gradientd_acquire(run);
    cr_assert(elements);
    cr_assert_eq(gradientd_acquire(run), elements, "a second acquire gives another place");
    large_gradient(i, elements);
    return gradientd_commit(run, &step, NULL);
}

// Steps of each kind: one group absent, or both, a scalar with it, one after it, not applied.
static int submit_varied(struct gradientd_run *run, int64_t i) {
    const struct gradientd_scalar loss = {"train/loss", (float)i}, other = {"validation/loss", (float)-i};
    float gradient[TRAINER_NUMEL];
    struct gradientd_step step = trainer_step(i);
    trainer_gradient(i, gradient);
    step.not_applied = i % 7 == 0;
    step.scalars = &loss;
    step.n_scalars = i % 2 == 0;
    const void *gradients[] = {i % 5 ? gradient : NULL, i % 3 ? gradient + TRAINER_FIRST_NUMEL : NULL};
    int result = gradientd_submit(run, &step, gradients);
    if (i % 4 == 0)
        cr_assert_eq(gradientd_scalars(run, i, TRAINER_WALL_TIME + (double)i, &other, 1), GRADIENTD_OK);
    return result;
}

static int commit_varied(struct gradientd_run *run, int64_t i) {
    const struct gradientd_scalar loss = {"train/loss", (float)i}, other = {"validation/loss", (float)-i};
    const bool present[] = {i % 5 != 0, i % 3 != 0};
    struct gradientd_step step = trainer_step(i);
    step.not_applied = i % 7 == 0;
    step.scalars = &loss;
    step.n_scalars = i % 2 == 0;
    float *elements = gradientd_acquire(run);
    cr_assert(elements);
    trainer_gradient(i, elements);
    int result = gradientd_commit(run, &step, present);
    if (i % 4 == 0)
        cr_assert_eq(gradientd_scalars(run, i, TRAINER_WALL_TIME + (double)i, &other, 1), GRADIENTD_OK);
    return result;
}

// ---- the same bytes

struct way {
    const char *run;
    enum gradientd_transport transport;
    int (*submit)(struct gradientd_run *run, int64_t step);
};

// Trains each way; all files must be like the first, which goes through memory.
static void expect_same_files(struct gradientd_options (*options_of)(enum gradientd_transport, const char *),
                              const struct way *ways, size_t n_ways, int64_t steps) {
    char paths[8][512];
    for (size_t w = 0; w < n_ways; w++) {
        struct gradientd_options options = options_of(ways[w].transport, ways[w].run);
        struct gradientd_run *run = trainer_open(&options);
        snprintf(paths[w], sizeof(paths[w]), "%s", gradientd_event_path(run));
        for (int64_t i = 1; i <= steps; i++)
            cr_assert_eq(ways[w].submit(run, i), GRADIENTD_OK, "%s, step %lld: %s", ways[w].run, (long long)i,
                         gradientd_last_error(run));
        trainer_close(run);
        scratch_expect_same(paths[w], paths[0]);
    }
    struct event_values values;
    event_values_read(paths[0], &values);
    cr_assert_gt(event_values_count(&values, "gradient/norm"), 0);
    event_values_free(&values);
}

Test(client_inline, small_gradients_write_the_same_file) {
    static const struct way ways[] = {
        {"memory", GRADIENTD_SHARED_MEMORY, submit_varied},
        {"raw", GRADIENTD_INLINE, submit_varied},
        {"deflated", GRADIENTD_INLINE_DEFLATED, submit_varied},
        {"raw_in_place", GRADIENTD_INLINE, commit_varied},
        {"deflated_in_place", GRADIENTD_INLINE_DEFLATED, commit_varied},
    };
    expect_same_files(options_for, ways, sizeof(ways) / sizeof(ways[0]), STEPS);
}

Test(client_inline, large_gradients_write_the_same_file) {
    static const struct way ways[] = {
        {"memory", GRADIENTD_SHARED_MEMORY, submit_large},
        {"raw", GRADIENTD_INLINE, submit_large},
        {"deflated", GRADIENTD_INLINE_DEFLATED, submit_large},
        {"raw_in_place", GRADIENTD_INLINE, commit_large},
        {"deflated_in_place", GRADIENTD_INLINE_DEFLATED, commit_large},
    };
    expect_same_files(large_options_for, ways, sizeof(ways) / sizeof(ways[0]), LARGE_STEPS);
}

// ---- a daemon that does not read

// Submits from step `first` to a stopped daemon until one is skipped; its number.
static int64_t fill_socket(struct gradientd_run *run, int (*submit)(struct gradientd_run *, int64_t), int64_t first) {
    enum { STEPS_MAX = 1 << 16 };
    int64_t i = first;
    while (submit(run, i) == GRADIENTD_OK) {
        i++;
        cr_assert_leq(i, first + STEPS_MAX, "a socket without end");
    }
    cr_assert_eq(gradientd_skipped(run), 1);
    return i;
}

static int submit_small(struct gradientd_run *run, int64_t i) {
    float gradient[TRAINER_NUMEL];
    trainer_gradient(i, gradient);
    struct gradientd_step step = trainer_step(i);
    return trainer_submit(run, &step, gradient);
}

struct progress {
    struct gradientd_run *run;
    int (*submit)(struct gradientd_run *run, int64_t step);
    int64_t *step;
    unsigned *accepted;
};

// Trains one step more; whether the daemon took it.
static bool takes_a_step(const void *context) {
    const struct progress *progress = context;
    int result = progress->submit(progress->run, ++*progress->step);
    cr_assert(result == GRADIENTD_OK || result == GRADIENTD_SKIPPED, "%d", result);
    *progress->accepted += result == GRADIENTD_OK;
    return result == GRADIENTD_OK;
}

static void expect_observed(const char *path, unsigned accepted, int64_t last) {
    struct event_values values;
    event_values_read(path, &values);
    cr_assert(values.whole);
    cr_assert_eq(values.stops, 1);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), accepted);
    const struct event_value *fraction = event_values_find(&values, "gradientd/observed_fraction", last);
    cr_assert(fraction);
    cr_assert_float_eq(fraction->value, (float)accepted / (float)last, 1e-6f);
    event_values_free(&values);
}

// A daemon is stopped, `steps_skipped` steps later it goes on.
static void train_past_a_stop(const struct gradientd_options *options, int (*submit)(struct gradientd_run *, int64_t),
                              int64_t steps_skipped) {
    struct gradientd_run *run = trainer_open(options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    daemon_process_freeze(&daemon_process);
    int64_t step = fill_socket(run, submit, 1);
    unsigned accepted = (unsigned)step - 1;
    for (int64_t i = 1; i < steps_skipped; i++) // one that waited would wait for ever
        cr_assert_eq(submit(run, ++step), GRADIENTD_SKIPPED);
    cr_assert_eq(gradientd_skipped(run), (uint64_t)steps_skipped);

    daemon_process_thaw(&daemon_process);
    struct progress progress = {run, submit, &step, &accepted};
    cr_assert(scratch_wait_until(takes_a_step, &progress, 20.0), "no step is taken after SIGCONT");
    cr_assert_eq(gradientd_skipped(run), (uint64_t)step - accepted);
    trainer_close(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);
    expect_observed(path, accepted, step);
}

Test(client_inline, stopped_daemon_costs_steps_and_no_time) {
    struct gradientd_options options = options_for(GRADIENTD_INLINE, "stopped");
    options.max_stall = 0.0;
    train_past_a_stop(&options, submit_small, 1000);
}

Test(client_inline, stopped_daemon_costs_large_steps_and_no_time) {
    struct gradientd_options options = large_options_for(GRADIENTD_INLINE, "stopped");
    options.max_stall = 0.0;
    train_past_a_stop(&options, submit_large, 20);
}

Test(client_inline, stopped_daemon_costs_deflated_steps_and_no_time) {
    struct gradientd_options options = large_options_for(GRADIENTD_INLINE_DEFLATED, "stopped");
    options.max_stall = 0.0;
    train_past_a_stop(&options, submit_large, 20);
}

Test(client_inline, step_waits_no_longer_than_max_stall) {
    struct gradientd_options options = large_options_for(GRADIENTD_INLINE, "stall");
    options.max_stall = 0.05;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_freeze(&daemon_process);
    cr_assert_eq(submit_large(run, 1), GRADIENTD_OK);
    double before = scratch_now();
    cr_assert_eq(submit_large(run, 2), GRADIENTD_SKIPPED);
    double waited = scratch_now() - before;
    cr_assert(waited >= 0.05 && waited < 5.0, "waited %f s", waited);
    cr_assert_null(gradientd_acquire(run));
    daemon_process_thaw(&daemon_process);
    trainer_close(run); // sends the rest
}

// Scalars behind a frame that is on its way, of steps that were skipped and between them, in their order.
Test(client_inline, scalars_wait_behind_a_large_step) {
    enum { SCALARS = 1000 };
    struct gradientd_options options = large_options_for(GRADIENTD_INLINE, "scalars");
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    daemon_process_freeze(&daemon_process);
    cr_assert_eq(submit_large(run, 1), GRADIENTD_OK);
    const struct gradientd_scalar loss = {"train/loss", 0.5f}, between = {"validation/loss", 0.25f};
    for (int64_t i = 2; i < 2 + SCALARS; i++) {
        struct gradientd_step step = trainer_step(i);
        const void *gradients[] = {large};
        step.scalars = &loss;
        step.n_scalars = 1;
        cr_assert_eq(gradientd_submit(run, &step, gradients), GRADIENTD_SKIPPED);
        cr_assert_eq(gradientd_scalars(run, i, TRAINER_WALL_TIME, &between, 1), GRADIENTD_OK);
    }
    daemon_process_thaw(&daemon_process);
    trainer_close(run);

    struct event_values values;
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 1);
    cr_assert_eq(event_values_count(&values, "train/loss"), SCALARS);
    cr_assert_eq(event_values_count(&values, "validation/loss"), SCALARS);
    event_values_free(&values);
}

// ---- a daemon that is gone

// Trains on after step `last` until the run knows that it is lost, and no warning is the second.
static void expect_lost(struct gradientd_run *run, int (*submit)(struct gradientd_run *, int64_t), int64_t last,
                        const char *reason) {
    enum { STEPS_MAX = 100 };
    int result = GRADIENTD_OK;
    for (int64_t i = last + 1; i <= last + STEPS_MAX && result != GRADIENTD_DETACHED; i++)
        result = submit(run, i);
    cr_assert_eq(result, GRADIENTD_DETACHED, "%d steps did not notice that the run is lost", STEPS_MAX);
    cr_assert(strstr(warnings.text, reason), "%s", warnings.text);
    cr_assert_eq(submit(run, last + STEPS_MAX + 1), GRADIENTD_DETACHED);
    cr_assert_null(gradientd_acquire(run));
    cr_assert_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
    cr_assert_eq(warnings.count, 1);
}

static void lose_in_mid_frame(enum gradientd_transport transport) {
    struct gradientd_options options = large_options_for(transport, "killed");
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_freeze(&daemon_process);
    cr_assert_eq(submit_large(run, 1), GRADIENTD_OK);
    cr_assert_eq(submit_large(run, 2), GRADIENTD_SKIPPED);
    daemon_process_kill(&daemon_process);
    expect_lost(run, submit_large, 2, "went away");
}

Test(client_inline, daemon_killed_in_mid_frame) {
    lose_in_mid_frame(GRADIENTD_INLINE);
}

Test(client_inline, daemon_killed_in_mid_deflated_frame) {
    lose_in_mid_frame(GRADIENTD_INLINE_DEFLATED);
}

Test(client_inline, refusal_is_read_at_a_later_step) {
    static const struct gradientd_group groups[] = {
        {.name = "a", .numel = TRAINER_FIRST_NUMEL, .step_lag = 1000000},
        {.name = "b", .numel = TRAINER_NUMEL - TRAINER_FIRST_NUMEL},
    };
    struct gradientd_options options = options_for(GRADIENTD_INLINE, "refused");
    options.groups = groups;
    struct gradientd_run *run = trainer_open(&options);
    int64_t step = 1;
    while (submit_small(run, step) == GRADIENTD_OK)
        step++;
    expect_lost(run, submit_small, step, "step_lag");
}

// ---- doubles

static const struct {
    double given;
    float sent;
} narrowed[] = {
    {1.0, 1.0f},
    {-0.0, -0.0f},
    {1.0 + 0x1p-24, 1.0f},                        // a tie, down to even
    {1.0 + 0x3p-24, 1.0f + 0x1p-22f},             // a tie, up to even
    {-1.0 - 0x1p-24 - 0x1p-40, -1.0f - 0x1p-23f}, // beyond a tie
    {0x1.fffffep127, 0x1.fffffep127f},            // float's largest
    {0x1.fffffefp127, 0x1.fffffep127f},           // rounds down to it
    {0x1.ffffffp127, INFINITY},                   // halfway to what float cannot hold
    {-1e300, -INFINITY},
    {(double)INFINITY, INFINITY},
    {(double)NAN, NAN},
    {0x1p-149, 0x1p-149f}, // float's smallest
    {0x1p-150, 0.0f},      // a tie, down to zero
    {0x1.8p-150, 0x1p-149f},
    {-1e-300, -0.0f},
};

enum { NARROWED = sizeof(narrowed) / sizeof(narrowed[0]), NARROWED_NOT_FINITE = 4 };

static void train_narrowed(enum gradientd_element_type type, enum gradientd_transport transport, const char *name,
                           bool in_place, char path[512]) {
    static const struct gradientd_group groups[] = {{.name = "first", .numel = 1},
                                                    {.name = "rest", .numel = NARROWED - 1}};
    double given[NARROWED];
    float sent[NARROWED];
    for (int i = 0; i < NARROWED; i++) {
        given[i] = narrowed[i].given;
        sent[i] = narrowed[i].sent;
    }
    struct gradientd_options options = options_for(transport, name);
    options.groups = groups;
    options.element_type = type;
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    for (int64_t i = 1; i <= 3; i++) {
        struct gradientd_step step = trainer_step(i);
        const void *doubles[] = {given, given + 1};
        const void *floats[] = {sent, sent + 1};
        if (in_place) {
            memcpy(gradientd_acquire(run), sent, sizeof(sent));
            cr_assert_eq(gradientd_commit(run, &step, NULL), GRADIENTD_OK);
        } else {
            cr_assert_eq(gradientd_submit(run, &step, type == GRADIENTD_F64 ? doubles : floats), GRADIENTD_OK);
        }
    }
    trainer_close(run);
}

Test(client_inline, doubles_are_rounded_to_float) {
    char expected[512], path[512];
    train_narrowed(GRADIENTD_F32, GRADIENTD_SHARED_MEMORY, "f32", false, expected);
    train_narrowed(GRADIENTD_F64, GRADIENTD_SHARED_MEMORY, "f64", false, path);
    scratch_expect_same(path, expected);
    train_narrowed(GRADIENTD_F64, GRADIENTD_INLINE, "inline", false, path);
    scratch_expect_same(path, expected);
    train_narrowed(GRADIENTD_F64, GRADIENTD_INLINE_DEFLATED, "deflated", false, path);
    scratch_expect_same(path, expected);
    train_narrowed(GRADIENTD_F64, GRADIENTD_SHARED_MEMORY, "in_place", true, path); // of floats
    scratch_expect_same(path, expected);

    struct event_values values;
    event_values_read(expected, &values);
    const struct event_value *non_finite = event_values_find(&values, "gradient/non_finite", 1);
    cr_assert(non_finite && non_finite->value == (float)NARROWED_NOT_FINITE);
    event_values_free(&values);
}
