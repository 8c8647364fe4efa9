// What a trainer submits through the C client against what the event file holds.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon_process.h"
#include "event_values.h"
#include "scratch.h"
#include "trainer.h"

static char directory[SCRATCH_PATH_BYTES];
static struct daemon_process daemon_process;
static struct event_values values;

static void set_up(void) {
    scratch_make(directory);
    daemon_process_start(&daemon_process, directory);
}

static void tear_down(void) {
    event_values_free(&values);
    daemon_process_stop(&daemon_process);
    scratch_remove(directory);
}

TestSuite(client, .init = set_up, .fini = tear_down, .timeout = 120);

static struct gradientd_options options_for(const char *run) {
    return trainer_options(daemon_process.socket, directory, run, NULL);
}

// Closes the run and reads its file, which must be whole.
static void close_and_read(struct gradientd_run *run) {
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    trainer_close(run);
    event_values_read(path, &values);
    cr_assert(values.whole);
    cr_assert_eq(values.starts, 1);
    cr_assert_eq(values.stops, 1);
}

static void expect_value(const char *tag, int64_t step, double expected) {
    const struct event_value *found = event_values_find(&values, tag, step);
    cr_assert(found, "%s has no value at step %lld", tag, (long long)step);
    cr_assert(fabs((double)found->value - expected) <= 1e-6 * fabs(expected), "%s at step %lld is %.9g, not %.9g", tag,
              (long long)step, (double)found->value, expected);
    cr_assert(found->wall_time == TRAINER_WALL_TIME + (double)step, "%s at step %lld has wall time %f", tag,
              (long long)step, found->wall_time);
}

static void expect_none(const char *tag, int64_t step) {
    cr_assert_not(event_values_find(&values, tag, step), "%s has a value at step %lld", tag, (long long)step);
}

static void submit(struct gradientd_run *run, const struct gradientd_step *step, const float *gradient) {
    int result = trainer_submit(run, step, gradient);
    cr_assert(result == GRADIENTD_OK, "%d: %s", result, gradientd_last_error(run));
}

static const float five_long[TRAINER_NUMEL] = {1, 2, 2, 4, 0}; // its norm is 5

Test(client, writes_known_values) {
    static const float turned[TRAINER_NUMEL] = {-2, -4, -4, -8, 0};
    static const float *const gradients[] = {five_long, five_long, turned};
    static const struct {
        const char *tag;
        int64_t step;
        double value;
    } expected[] = {
        {"gradient/norm", 1, 5},
        {"gradient/norm", 3, 10},
        {"gradient/max_abs", 3, 8},
        {"gradient/zero_fraction", 1, 0.2},
        {"gradient/non_finite", 1, 0},
        {"coherence/cosine_lag1", 2, 1},
        {"coherence/cosine_lag1", 3, -1},
        {"coherence/cosine_lag2", 3, -1},
        {"coherence/ratio_lag1", 3, -0.5},
        {"coherence/mu", 2, 1},
        {"coherence/mu", 3, -0.5},
        {"coherence/tolerable_staleness", 3, 0},
        {"adam/A", 1, 4 * 0.1},
        {"adam/A", 3, 12 * 0.1},
        {"adam/B", 1, 0.01 * 25},
        {"adam/B", 3, 0.01 * (25 + 25 + 100)},
        {"adam/active_fraction", 2, 0.8},
        {"gradientd/observed_fraction", 3, 1},
    };
    struct gradientd_options options = options_for("known/values");
    struct gradientd_run *run = trainer_open(&options);
    for (int i = 0; i < 3; i++) {
        struct gradientd_step step = trainer_step(i + 1);
        submit(run, &step, gradients[i]);
    }
    close_and_read(run);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        expect_value(expected[i].tag, expected[i].step, expected[i].value);
    expect_none("coherence/cosine_lag1", 1);
    expect_none("coherence/cosine_lag2", 2);
    expect_none("coherence/tolerable_staleness", 2);
    cr_assert_eq(values.start_step, 1);
}

Test(client, event_file_lies_in_the_runs_directory) {
    char prefix[SCRATCH_PATH_BYTES + 64];
    struct gradientd_options options = options_for("some/run=1");
    options.first_step = 41;
    struct gradientd_run *run = trainer_open(&options);
    snprintf(prefix, sizeof(prefix), "%s/some/run=1/events.out.tfevents.", directory);
    cr_assert_eq(strncmp(gradientd_event_path(run), prefix, strlen(prefix)), 0);
    close_and_read(run);
    cr_assert_eq(values.n_values, 0);
    cr_assert_eq(values.start_step, 41);
}

Test(client, no_run_name_is_the_logdir_itself) {
    char prefix[SCRATCH_PATH_BYTES + 64];
    struct gradientd_options options = options_for(NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(prefix, sizeof(prefix), "%s/events.out.tfevents.", directory);
    cr_assert_eq(strncmp(gradientd_event_path(run), prefix, strlen(prefix)), 0);
    trainer_close(run);
}

Test(client, no_logdir_is_the_daemons_state_directory) {
    for (int transport = GRADIENTD_SHARED_MEMORY; transport <= GRADIENTD_INLINE; transport++) {
        struct gradientd_options options = options_for("state");
        options.logdir = NULL;
        options.transport = (enum gradientd_transport)transport;
        struct gradientd_run *run = trainer_open(&options);
        cr_assert_eq(strncmp(gradientd_event_path(run), daemon_process.state, strlen(daemon_process.state)), 0, "%s",
                     gradientd_event_path(run));
        struct gradientd_step step = trainer_step(1);
        submit(run, &step, five_long);
        close_and_read(run);
        expect_value("gradient/norm", 1, 5);
        event_values_free(&values);
    }
}

// Steps of each kind: all present, one group absent, a scalar with it, not applied.
static void vary_step(int64_t i, struct gradientd_step *step, bool present[2]) {
    static struct gradientd_scalar loss = {.tag = "train/loss"};
    *step = trainer_step(i);
    step->not_applied = i % 7 == 0;
    present[0] = i % 5 != 0;
    present[1] = i % 3 != 0;
    loss.value = (float)i;
    if (i % 2 == 0) {
        step->scalars = &loss;
        step->n_scalars = 1;
    }
}

static void submit_varied(struct gradientd_run *run, int64_t i) {
    float gradient[TRAINER_NUMEL];
    struct gradientd_step step;
    bool present[2];
    trainer_gradient(i, gradient);
    vary_step(i, &step, present);
    const void *gradients[] = {present[0] ? gradient : NULL, present[1] ? gradient + TRAINER_FIRST_NUMEL : NULL};
    cr_assert_eq(gradientd_submit(run, &step, gradients), GRADIENTD_OK, "%s", gradientd_last_error(run));
}

static void commit_varied(struct gradientd_run *run, int64_t i) {
    struct gradientd_step step;
    bool present[2];
    vary_step(i, &step, present);
    float *elements = gradientd_acquire(run);
    cr_assert(elements);
    cr_assert_eq(gradientd_acquire(run), elements, "a second acquire gives another slot");
    trainer_gradient(i, elements);
    cr_assert_eq(gradientd_commit(run, &step, present), GRADIENTD_OK, "%s", gradientd_last_error(run));
}

Test(client, committed_in_place_equals_submitted) {
    char copied_path[512], in_place_path[512];
    struct gradientd_options options = options_for("copied");
    struct gradientd_run *copied = trainer_open(&options);
    options.run = "in_place";
    struct gradientd_run *in_place = trainer_open(&options);
    snprintf(copied_path, sizeof(copied_path), "%s", gradientd_event_path(copied));
    snprintf(in_place_path, sizeof(in_place_path), "%s", gradientd_event_path(in_place));
    for (int64_t i = 1; i <= 40; i++) {
        submit_varied(copied, i);
        commit_varied(in_place, i);
    }
    trainer_close(copied);
    trainer_close(in_place);
    scratch_expect_same(in_place_path, copied_path);
    event_values_read(copied_path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 40 - 2); // steps 15 and 30 have no group
    cr_assert_eq(event_values_count(&values, "train/loss"), 20);
}

Test(client, commit_without_flags_means_all_groups) {
    struct gradientd_options options = options_for("all");
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    memcpy(gradientd_acquire(run), five_long, sizeof(five_long));
    cr_assert_eq(gradientd_commit(run, &step, NULL), GRADIENTD_OK);
    close_and_read(run);
    expect_value("gradient/norm", 1, 5);
}

Test(client, absent_group_is_not_zero) {
    struct gradientd_options options = options_for("absent");
    struct gradientd_run *run = trainer_open(&options);
    const void *const gradients[][2] = {{five_long, five_long + TRAINER_FIRST_NUMEL},
                                        {five_long, NULL},
                                        {NULL, five_long + TRAINER_FIRST_NUMEL}};
    for (int i = 0; i < 3; i++) {
        struct gradientd_step step = trainer_step(i + 1);
        cr_assert_eq(gradientd_submit(run, &step, gradients[i]), GRADIENTD_OK);
    }
    close_and_read(run);
    expect_value("gradient/norm", 2, 3);
    expect_value("gradient/zero_fraction", 2, 0);
    expect_value("coherence/cosine_lag1", 2, 1);
    expect_value("gradient/norm", 3, 4);
    expect_none("coherence/cosine_lag1", 3);     // the bias was absent one step earlier ...
    expect_value("coherence/cosine_lag2", 3, 1); // ... but not two
}

Test(client, scalars_with_and_between_steps) {
    const struct gradientd_scalar loss[] = {{"train/loss", 0.25f}, {"train/accuracy", 0.5f}};
    const struct gradientd_scalar validation = {"validation/loss", 0.75f};
    struct gradientd_options options = options_for("scalars");
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    step.scalars = loss;
    step.n_scalars = 2;
    submit(run, &step, five_long);
    cr_assert_eq(gradientd_scalars(run, 1, TRAINER_WALL_TIME + 1, &validation, 1), GRADIENTD_OK);
    step = trainer_step(2);
    submit(run, &step, five_long);
    cr_assert_eq(gradientd_scalars(run, 7, TRAINER_WALL_TIME + 7, &validation, 1), GRADIENTD_OK);
    close_and_read(run);
    expect_value("train/loss", 1, 0.25);
    expect_value("train/accuracy", 1, 0.5);
    expect_value("validation/loss", 1, 0.75);
    expect_value("validation/loss", 7, 0.75);
    expect_none("train/loss", 2);
    expect_value("gradient/norm", 2, 5);
}

Test(client, step_without_update_leaves_the_optimiser_alone) {
    struct gradientd_options options = options_for("not_applied");
    struct gradientd_run *run = trainer_open(&options);
    for (int64_t i = 1; i <= 3; i++) {
        struct gradientd_step step = trainer_step(i);
        step.not_applied = i == 2;
        submit(run, &step, five_long);
    }
    close_and_read(run);
    expect_value("gradient/norm", 2, 5);
    expect_value("coherence/cosine_lag1", 2, 1);
    expect_none("adam/A", 2);
    expect_value("adam/A", 3, 2 * 4 * 0.1);
    expect_value("gradientd/observed_fraction", 3, 1);
}

Test(client, missing_optimizer_steps_show_as_observed_fraction) {
    static const uint64_t optimizer_steps[] = {1, 2, 5, 0};
    struct gradientd_options options = options_for("gaps");
    struct gradientd_run *run = trainer_open(&options);
    for (int i = 0; i < 4; i++) {
        struct gradientd_step step = trainer_step(i + 1);
        step.optimizer_step = optimizer_steps[i];
        submit(run, &step, five_long);
    }
    close_and_read(run);
    expect_value("gradientd/observed_fraction", 2, 1);
    expect_value("gradientd/observed_fraction", 3, 3.0 / 5.0);
    expect_value("gradientd/observed_fraction", 4, 4.0 / 6.0); // 0: one after the last
}

// A shadow gives what the rule itself gives; the others' tags are not there.
Test(client, shadow_rules_have_tags_of_their_own) {
    static const struct gradientd_parameter_group parameter_groups[] = {{.beta2 = 0.5, .eps = 0.25}};
    static const enum gradientd_rule shadows[] = {GRADIENTD_ADAGRAD, GRADIENTD_ADAM};
    struct event_values adam;
    struct gradientd_options options = options_for("adam");
    options.parameter_groups = parameter_groups;
    options.optimizer.rule = GRADIENTD_ADAM;
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 4);
    close_and_read(run);
    adam = values;
    options.run = "sgd";
    options.optimizer.rule = GRADIENTD_SGD;
    options.shadow_rules = shadows;
    options.n_shadow_rules = 2;
    run = trainer_open(&options);
    trainer_submit_steps(run, 1, 4);
    close_and_read(run);
    for (int64_t step = 1; step <= 4; step++)
        expect_value("shadow_adam/A", step, (double)event_values_find(&adam, "adam/A", step)->value);
    cr_assert_eq(event_values_count(&values, "shadow_adagrad/A"), 4);
    cr_assert_eq(event_values_count(&values, "shadow_amsgrad/A"), 0);
    event_values_free(&adam);
}

// All of the options that choose groups: three slices, of which one is left out and two share their tags.
Test(client, slices_have_tags_of_their_own) {
    static const struct gradientd_group groups[] = {{.name = "a.weight", .numel = 2},
                                                    {.name = "a.bias", .numel = 1},
                                                    {.name = "b.weight", .numel = 2}};
    static const char *const include[] = {"a*", "b*"}, *const exclude[] = {"b.w?ight"};
    static const struct {
        enum gradientd_per_group per_group;
        bool chosen;
        size_t folded, whole, more; // values of group_norm/a, group_norm/b.weight and group_max_abs/a
    } cases[] = {
        {GRADIENTD_PER_GROUP_AUTO, false, 0, 1, 0},
        {GRADIENTD_PER_GROUP_AUTO, true, 1, 0, 0},
        {GRADIENTD_PER_GROUP_ON, true, 1, 0, 1},
        {GRADIENTD_PER_GROUP_OFF, true, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gradientd_options options = options_for("slices");
        options.groups = groups;
        options.n_groups = 3;
        options.per_group = cases[i].per_group;
        if (cases[i].chosen) {
            options.include = include;
            options.n_include = 2;
            options.exclude = exclude;
            options.n_exclude = 1;
            options.fold_depth = 1;
        }
        struct gradientd_run *run = trainer_open(&options);
        struct gradientd_step step = trainer_step(1);
        const void *gradients[] = {five_long, five_long + 2, five_long + 3};
        cr_assert_eq(gradientd_submit(run, &step, gradients), GRADIENTD_OK);
        close_and_read(run);
        cr_expect_eq(event_values_count(&values, "group_norm/a"), cases[i].folded, "case %zu", i);
        cr_expect_eq(event_values_count(&values, "group_norm/b.weight"), cases[i].whole, "case %zu", i);
        cr_expect_eq(event_values_count(&values, "group_max_abs/a"), cases[i].more, "case %zu", i);
        if (cases[i].folded > 0)
            expect_value("group_norm/a", 1, 3);
        event_values_free(&values);
    }
}

Test(client, optimizer_step_goes_on_from_the_start) {
    struct gradientd_options options = options_for("resumed");
    options.optimizer.rule = GRADIENTD_ADAM;
    options.parameter_groups = &(struct gradientd_parameter_group){.beta2 = 0.5};
    options.start_optimizer_step = 3;
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    step.optimizer_step = 3;
    cr_assert_eq(trainer_submit(run, &step, five_long), -EINVAL);
    cr_assert(strstr(gradientd_last_error(run), "optimizer_step is 3"), "%s", gradientd_last_error(run));
    for (int i = 1; i <= 2; i++) { // of which the second is the sixth, as far as the daemon can tell
        step = trainer_step(i);
        step.optimizer_step = i == 2 ? 6 : 0;
        submit(run, &step, five_long);
    }
    close_and_read(run);
    expect_value("gradientd/observed_fraction", 1, 1);
    expect_value("gradientd/observed_fraction", 2, 2.0 / 3.0); // the first was the fourth
}

Test(client, lags_count_strides) {
    static const float turned[TRAINER_NUMEL] = {-2, -4, -4, -8, 0};
    struct gradientd_options options = options_for("strides");
    options.stride = 10;
    options.first_step = 5;
    struct gradientd_run *run = trainer_open(&options);
    for (int64_t i = 0; i < 3; i++) {
        struct gradientd_step step = trainer_step(5 + 10 * i);
        submit(run, &step, i == 1 ? turned : five_long);
    }
    struct gradientd_step between = trainer_step(34); // no lag of any step, and nobody's harm
    submit(run, &between, five_long);
    close_and_read(run);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 4);
    expect_value("coherence/cosine_lag1", 15, -1);
    expect_value("coherence/cosine_lag1", 25, -1);
    expect_value("coherence/cosine_lag2", 25, 1);
}

Test(client, rates_that_change_are_followed) {
    struct gradientd_options options = options_for("rates");
    struct gradientd_run *run = trainer_open(&options);
    double rate = 0.5;
    struct gradientd_step step = trainer_step(1);
    step.learning_rates = &rate;
    submit(run, &step, five_long);
    step = trainer_step(2);
    submit(run, &step, five_long);
    close_and_read(run);
    expect_value("adam/A", 1, 4 * 0.5);
    expect_value("adam/A", 2, 4 * 0.5 + 4 * 0.1);
}

Test(client, wall_time_is_now_when_not_given) {
    struct gradientd_options options = options_for("now");
    options.wall_time = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    step.wall_time = 0.0;
    double before = (double)time(NULL);
    submit(run, &step, five_long);
    double after = (double)time(NULL) + 1.0;
    close_and_read(run);
    const struct event_value *norm = event_values_find(&values, "gradient/norm", 1);
    cr_assert(norm && norm->wall_time >= before && norm->wall_time <= after);
}

Test(client, waits_rather_than_skips_with_max_stall) {
    enum { STEPS = 2000 };
    struct gradientd_options options = options_for("burst");
    options.inflight = 1;
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, STEPS);
    cr_assert_eq(gradientd_skipped(run), 0);
    close_and_read(run);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), STEPS);
    cr_assert_eq(event_values_count(&values, "coherence/cosine_lag1"), STEPS - 1);
}

Test(client, names_of_quick_restarts_sort_by_time) {
    // the clock went back since the last run, on a host whose name sorts after all others
    char last[512];
    snprintf(last, sizeof(last), "%s/restarts", directory);
    cr_assert_eq(mkdir(last, 0700), 0);
    snprintf(last, sizeof(last), "%s/restarts/events.out.tfevents.%010lld.zzz.99999999.9.gradientd", directory,
             (long long)time(NULL) + 1000);
    FILE *file = fopen(last, "w");
    cr_assert(file);
    fclose(file);
    for (int i = 0; i < 5; i++) {
        struct gradientd_options options = options_for("restarts");
        struct gradientd_run *run = trainer_open(&options);
        cr_assert_gt(strcmp(gradientd_event_path(run), last), 0, "%s does not sort after %s", gradientd_event_path(run),
                     last);
        snprintf(last, sizeof(last), "%s", gradientd_event_path(run));
        trainer_close(run);
    }
}

Test(client, failure_closes_the_file_too) {
    struct gradientd_options options = options_for("failed");
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    cr_assert_eq(gradientd_close(run, GRADIENTD_FAILURE), GRADIENTD_OK);
    cr_assert(event_values_ended(path));
}

Test(client_null, every_call_is_detached) {
    struct gradientd_step step = trainer_step(1);
    const void *gradients[2] = {five_long, five_long};
    struct gradientd_scalar scalar = {"a", 1.0f};
    cr_assert_eq(gradientd_submit(NULL, &step, gradients), GRADIENTD_DETACHED);
    cr_assert_null(gradientd_acquire(NULL));
    cr_assert_eq(gradientd_commit(NULL, &step, NULL), GRADIENTD_DETACHED);
    cr_assert_eq(gradientd_scalars(NULL, 1, 0.0, &scalar, 1), GRADIENTD_DETACHED);
    cr_assert_eq(gradientd_skipped(NULL), 0);
    cr_assert_null(gradientd_event_path(NULL));
    cr_assert_str_eq(gradientd_last_error(NULL), "");
    cr_assert_eq(gradientd_close(NULL, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
}
