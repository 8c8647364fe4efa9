// Wrong arguments: each answer names the field, the value and the limit, and costs the trainer nothing else.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

TestSuite(client_errors, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

// ---- options

static const struct gradientd_group unnamed[] = {{.name = "", .numel = 1}};
static const struct gradientd_group nameless[] = {{.name = NULL, .numel = 1}};
static const struct gradientd_group control[] = {{.name = "a\nb", .numel = 1}};
static const struct gradientd_group not_utf8[] = {{.name = "\xff", .numel = 1}};
static const struct gradientd_group stray[] = {{.name = "a", .numel = 1},
                                               {.name = "b", .numel = 1, .parameter_group = 1}};
static const struct gradientd_group empty[] = {{.name = "a", .numel = 0}};
// One element more than goes inline, and more than counts in 64 bits.
static const struct gradientd_group large[] = {{.name = "a", .numel = 1}, {.name = "b", .numel = 1 << 28}};
static const struct gradientd_group overflowing[] = {{.name = "a", .numel = 1}, {.name = "b", .numel = UINT64_MAX}};
static const enum gradientd_rule own_rule[] = {GRADIENTD_SGD};
static const enum gradientd_rule unknown_rule[] = {(enum gradientd_rule)8};
static const char *const patterns[] = {"*", NULL};
static const char *const empty_pattern[] = {""};
static const float *const no_vectors[] = {NULL, NULL};
static const struct gradientd_parameter_group bad_beta2[] = {{.beta2 = 1.0}};
static const struct gradientd_parameter_group nan_start_rate[] = {{.start_learning_rate = (double)NAN}};
static const struct gradientd_parameter_group bad_eps[] = {{.eps = -1.0}};

// What to put into good options; what is 0 stays as it is.
struct spoiling {
    void (*apply)(struct gradientd_options *options);
    int code;
    const char *parts[3]; // of the error's text
};

#define SPOIL(name, assignment)                                                                                        \
    static void name(struct gradientd_options *options) {                                                              \
        assignment;                                                                                                    \
    }

SPOIL(empty_logdir, options->logdir = "")
SPOIL(remote_logdir, options->logdir = "gs://bucket/runs")
SPOIL(file_as_logdir, options->logdir = "/dev/null")
SPOIL(run_above, options->run = "../elsewhere")
SPOIL(run_absolute, options->run = "/elsewhere")
SPOIL(run_with_space, options->run = "a b")
SPOIL(wrong_bytes, options->options_bytes = sizeof(*options) - 8)
SPOIL(no_bytes, options->options_bytes = 0)
SPOIL(no_groups, options->n_groups = 0)
SPOIL(null_groups, options->groups = NULL)
SPOIL(many_groups, options->n_groups = 65537)
SPOIL(no_parameter_groups, options->n_parameter_groups = 0)
SPOIL(many_parameter_groups, options->n_parameter_groups = 4097)
SPOIL(group_unnamed, options->groups = unnamed; options->n_groups = 1)
SPOIL(group_nameless, options->groups = nameless; options->n_groups = 1)
SPOIL(group_control, options->groups = control; options->n_groups = 1)
SPOIL(group_not_utf8, options->groups = not_utf8; options->n_groups = 1)
SPOIL(group_stray, options->groups = stray; options->n_groups = 2)
SPOIL(group_empty, options->groups = empty; options->n_groups = 1)
SPOIL(lag_zero, options->max_lag = 0)
SPOIL(lag_large, options->max_lag = 33)
SPOIL(inflight_zero, options->inflight = 0)
SPOIL(inflight_large, options->inflight = 65)
SPOIL(rule_zero, options->optimizer.rule = (enum gradientd_rule)0)
SPOIL(beta2_one, options->parameter_groups = bad_beta2)
SPOIL(eps_negative, options->parameter_groups = bad_eps)
SPOIL(first_step_negative, options->first_step = -1)
SPOIL(stride_zero, options->stride = 0)
SPOIL(element_type_large, options->element_type = (enum gradientd_element_type)4)
SPOIL(element_type_negative, options->element_type = (enum gradientd_element_type) - 1)
SPOIL(transport_large, options->transport = (enum gradientd_transport)3)
SPOIL(per_group_large, options->per_group = (enum gradientd_per_group)3)
SPOIL(shadows_many, options->n_shadow_rules = 8)
SPOIL(shadows_missing, options->n_shadow_rules = 1)
SPOIL(shadow_of_itself, options->shadow_rules = own_rule; options->n_shadow_rules = 1)
SPOIL(shadow_unknown, options->shadow_rules = unknown_rule; options->n_shadow_rules = 1)
SPOIL(include_many, options->include = patterns; options->n_include = 65)
SPOIL(include_missing, options->n_include = 1)
SPOIL(include_null, options->include = patterns; options->n_include = 2)
SPOIL(exclude_many, options->exclude = patterns; options->n_exclude = 65)
SPOIL(exclude_missing, options->n_exclude = 1)
SPOIL(exclude_empty, options->exclude = empty_pattern; options->n_exclude = 1)
SPOIL(inline_large, options->transport = GRADIENTD_INLINE; options->groups = large; options->n_groups = 2)
SPOIL(inline_overflow, options->transport = GRADIENTD_INLINE; options->groups = overflowing; options->n_groups = 2)
SPOIL(inline_half_large, options->transport = GRADIENTD_INLINE_DEFLATED; options->groups = large; options->n_groups = 2;
      options->element_type = GRADIENTD_BF16; options->start_second_moment = no_vectors)
SPOIL(start_rate_nan, options->parameter_groups = nan_start_rate)
SPOIL(time_nan, options->wall_time = (double)NAN)
SPOIL(connect_negative, options->connect_timeout = -1.0)
SPOIL(stall_negative, options->max_stall = -0.5)
SPOIL(close_nan, options->close_timeout = (double)NAN)

static const struct spoiling spoilings[] = {
    {empty_logdir, EINVAL, {"logdir is empty", "NULL"}},
    {remote_logdir, EINVAL, {"logdir", "gs://bucket/runs", "local"}},
    {file_as_logdir, ENOTDIR, {"/dev/null", "event file"}},
    {run_above, EINVAL, {"run", "1023"}},
    {run_absolute, EINVAL, {"run", "1023"}},
    {run_with_space, EINVAL, {"run", "1023"}},
    {wrong_bytes, EINVAL, {"options_bytes", "gradientd_options_default"}},
    {no_bytes, EINVAL, {"options_bytes is 0"}},
    {no_groups, EINVAL, {"n_groups is 0", "65536"}},
    {null_groups, EINVAL, {"groups"}},
    {many_groups, EINVAL, {"n_groups is 65537", "65536"}},
    {no_parameter_groups, EINVAL, {"n_parameter_groups is 0", "4096"}},
    {many_parameter_groups, EINVAL, {"n_parameter_groups is 4097", "4096"}},
    {group_unnamed, EINVAL, {"groups[0].name", "255"}},
    {group_nameless, EINVAL, {"groups[0].name", "255"}},
    {group_control, EINVAL, {"groups[0].name", "255"}},
    {group_not_utf8, EINVAL, {"groups[0].name", "UTF-8"}},
    {group_stray, EINVAL, {"groups[1].parameter_group is 1", "1"}},
    {group_empty, EBADMSG, {"numel of group 0 is 0", "at least 1"}},
    {lag_zero, EBADMSG, {"max_lag is 0", "1 and 32"}},
    {lag_large, EBADMSG, {"max_lag is 33", "1 and 32"}},
    {inflight_zero, EBADMSG, {"inflight is 0", "1 and 64"}},
    {inflight_large, EBADMSG, {"inflight is 65", "1 and 64"}},
    {rule_zero, EBADMSG, {"rule is 0", "1 and 7"}},
    {beta2_one, EBADMSG, {"beta2 is 1", "below 1"}},
    {eps_negative, EBADMSG, {"eps is -1", "not negative"}},
    {first_step_negative, EBADMSG, {"first_step is -1", "not be negative"}},
    {stride_zero, EINVAL, {"stride is 0", "at least 1"}},
    {element_type_large, EINVAL, {"element_type is 4", "0 and 3"}},
    {element_type_negative, EINVAL, {"element_type is -1", "0 and 3"}},
    {transport_large, EINVAL, {"transport is 3", "0 and 2"}},
    {per_group_large, EINVAL, {"per_group is 3", "0 and 2"}},
    {shadows_many, EINVAL, {"n_shadow_rules is 8", "7"}},
    {shadows_missing, EINVAL, {"shadow_rules is missing"}},
    {shadow_of_itself, EBADMSG, {"shadow_rules"}},
    {shadow_unknown, EBADMSG, {"shadow_rules", "8"}},
    {include_many, EINVAL, {"n_include is 65", "64"}},
    {include_missing, EINVAL, {"include is missing"}},
    {include_null, EINVAL, {"include[1]", "255"}},
    {exclude_many, EINVAL, {"n_exclude is 65", "64"}},
    {exclude_missing, EINVAL, {"exclude is missing"}},
    {exclude_empty, EINVAL, {"exclude[0]", "255"}},
    {inline_large, EINVAL, {"groups[1].numel is 268435456", "transport inline", "268435456"}},
    {inline_overflow, EINVAL, {"groups[1].numel is 18446744073709551615", "transport inline", "268435456"}},
    {inline_half_large, EINVAL, {"groups[1].numel is 268435456", "transport inline", "268435456"}},
    {start_rate_nan, EBADMSG, {"start_learning_rate", "finite"}},
    {time_nan, EINVAL, {"wall_time", "finite"}},
    {connect_negative, EINVAL, {"connect_timeout", "-1", "negative"}},
    {stall_negative, EINVAL, {"max_stall", "-0.5", "negative"}},
    {close_nan, EINVAL, {"close_timeout", "nan", "negative"}},
};

static void expect_parts(const char *text, const char *const parts[3]) {
    for (int i = 0; i < 3 && parts[i]; i++)
        cr_assert(strstr(text, parts[i]), "\"%s\" does not say \"%s\"", text, parts[i]);
}

Test(client_errors, wrong_options_are_named) {
    size_t fds = scratch_count_fds(0);
    for (size_t i = 0; i < sizeof(spoilings) / sizeof(spoilings[0]); i++) {
        const struct spoiling *spoiling = &spoilings[i];
        struct gradientd_options options = trainer_options(daemon_process.socket, directory, "wrong", NULL);
        struct gradientd_run *run = (struct gradientd_run *)&options; // anything but NULL
        struct gradientd_error error;
        spoiling->apply(&options);
        int result = gradientd_open(&options, &run, &error);
        cr_assert_eq(result, -spoiling->code, "%s: %d is not %d: %s", spoiling->parts[0], result, -spoiling->code,
                     error.text);
        cr_assert_eq(error.code, spoiling->code, "%s", spoiling->parts[0]);
        cr_assert_null(run, "%s", spoiling->parts[0]);
        expect_parts(error.text, spoiling->parts);
        cr_assert_eq(scratch_count_fds(0), fds, "%s: a descriptor leaked", spoiling->parts[0]);
    }
}

Test(client_errors, run_takes_four_descriptors_and_gives_them_back) {
    size_t fds = scratch_count_fds(0);
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "descriptors", NULL);
    struct gradientd_run *run = trainer_open(&options);
    cr_assert_eq(scratch_count_fds(0), fds + 4, "others than socket, memory, event file and pidfd are open");
    trainer_submit_steps(run, 1, 5);
    trainer_close(run);
    cr_assert_eq(scratch_count_fds(0), fds, "a descriptor leaked");
}

Test(client_errors, error_may_be_left_out) {
    struct gradientd_options options = trainer_options(daemon_process.socket, "", "wrong", NULL);
    struct gradientd_run *run;
    cr_assert_eq(gradientd_open(&options, &run, NULL), -EINVAL);
    cr_assert_null(run);
}

Test(client_errors, nobody_at_the_socket) {
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/nobody", directory);
    struct gradientd_options options = trainer_options(path, directory, "alone", NULL);
    options.private_daemon = true; // an explicit path is the only one tried
    options.daemon_path = daemon_process_program();
    struct gradientd_run *run;
    struct gradientd_error error;
    size_t fds = scratch_count_fds(0);
    cr_assert_eq(gradientd_open(&options, &run, &error), -ENOENT);
    cr_assert_null(run);
    expect_parts(error.text, (const char *const[3]){path, strerror(ENOENT)});
    cr_assert_eq(scratch_count_fds(0), fds);

    struct gradientd_step step = trainer_step(1);
    float gradient[TRAINER_NUMEL];
    trainer_gradient(1, gradient);
    cr_assert_eq(trainer_submit(run, &step, gradient), GRADIENTD_DETACHED);
    cr_assert_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
}

// ---- steps

static const double rate_nan[] = {(double)NAN};
static const double one[] = {1.0};
static const double negative[] = {-1.0};
static const struct gradientd_scalar bad_tags[] = {{"good", 1.0f}, {"", 2.0f}};
static const struct gradientd_scalar null_tag[] = {{NULL, 1.0f}};
static const struct gradientd_scalar own_tag[] = {{"gradient/norm", 1.0f}};
static const struct gradientd_scalar twice[] = {{"good", 1.0f}, {"good", 2.0f}};
static const struct gradientd_scalar old_tag[] = {{"old", 1.0f}};

struct step_spoiling {
    void (*apply)(struct gradientd_step *step);
    const char *parts[3];
};

#define SPOIL_STEP(name, assignment)                                                                                   \
    static void name(struct gradientd_step *step) {                                                                    \
        assignment;                                                                                                    \
    }

SPOIL_STEP(step_same, step->step--)
SPOIL_STEP(step_back, step->step -= 3)
SPOIL_STEP(optimizer_step_same, step->optimizer_step = 10)
SPOIL_STEP(step_time_nan, step->wall_time = (double)INFINITY)
SPOIL_STEP(rates_missing, step->learning_rates = NULL)
SPOIL_STEP(rates_nan, step->learning_rates = rate_nan)
SPOIL_STEP(step_beta2_one, step->beta2 = one)
SPOIL_STEP(step_eps_negative, step->eps = negative)
SPOIL_STEP(tag_empty, step->scalars = bad_tags; step->n_scalars = 2)
SPOIL_STEP(tag_null, step->scalars = null_tag; step->n_scalars = 1)
SPOIL_STEP(tag_own, step->scalars = own_tag; step->n_scalars = 1)
SPOIL_STEP(tag_twice, step->scalars = twice; step->n_scalars = 2)
SPOIL_STEP(tag_old, step->scalars = old_tag; step->n_scalars = 1)
SPOIL_STEP(tags_missing, step->n_scalars = 1)
SPOIL_STEP(tags_many, step->scalars = old_tag; step->n_scalars = 1025)

static const struct step_spoiling step_spoilings[] = {
    {step_same, {"step is 10", "above the last one, 10"}},
    {step_back, {"step is 8", "above the last one, 10"}},
    {optimizer_step_same, {"optimizer_step is 10", "above the last applied one, 10"}},
    {step_time_nan, {"wall_time is inf", "finite"}},
    {rates_missing, {"learning_rates is missing"}},
    {rates_nan, {"learning_rates[0] is nan", "finite"}},
    {step_beta2_one, {"beta2[0] is 1", "below 1"}},
    {step_eps_negative, {"eps[0] is -1", "not negative"}},
    {tag_empty, {"scalars[1].tag", "255"}},
    {tag_null, {"scalars[0].tag", "255"}},
    {tag_own, {"scalars[0]", "gradient/norm", "the daemon writes itself"}},
    {tag_twice, {"scalars[1]", "step 11", "not above its last one, 11"}},
    {tag_old, {"scalars[0]", "step 11", "not above its last one, 20"}},
    {tags_missing, {"scalars is missing"}},
    {tags_many, {"n_scalars is 1025", "1024"}},
};

// Steps 1 to 11 and the scalar `good` at 11, in spite of all the wrong ones.
static void submit_among_wrong(struct gradientd_run *run,
                               int (*submit)(struct gradientd_run *, const struct gradientd_step *)) {
    trainer_submit_steps(run, 1, 10);
    cr_assert_eq(gradientd_scalars(run, 20, TRAINER_WALL_TIME, old_tag, 1), GRADIENTD_OK);
    for (size_t i = 0; i < sizeof(step_spoilings) / sizeof(step_spoilings[0]); i++) {
        struct gradientd_step step = trainer_step(11);
        step_spoilings[i].apply(&step);
        int result = submit(run, &step);
        cr_assert_eq(result, -EINVAL, "%s: %d", step_spoilings[i].parts[0], result);
        expect_parts(gradientd_last_error(run), step_spoilings[i].parts);
    }
    struct gradientd_step step = trainer_step(11);
    step.scalars = bad_tags; // the first of them alone is good
    step.n_scalars = 1;
    int result = submit(run, &step);
    cr_assert_eq(result, GRADIENTD_OK, "%d: %s", result, gradientd_last_error(run));
}

static int submit_copied(struct gradientd_run *run, const struct gradientd_step *step) {
    float gradient[TRAINER_NUMEL];
    trainer_gradient(11, gradient);
    return trainer_submit(run, step, gradient);
}

static int commit_in_place(struct gradientd_run *run, const struct gradientd_step *step) {
    float *elements = gradientd_acquire(run);
    cr_assert(elements);
    trainer_gradient(11, elements);
    return gradientd_commit(run, step, NULL);
}

static void read_good(struct gradientd_run *run) {
    char path[512];
    struct event_values values;
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    cr_assert_eq(gradientd_skipped(run), 0);
    trainer_close(run);
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 11);
    const struct event_value *good = event_values_find(&values, "good", 11);
    cr_assert(good && good->value == 1.0f);
    event_values_free(&values);
}

Test(client_errors, wrong_step_leaves_the_run_as_it_was) {
    struct trainer_warnings warnings;
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "submit", &warnings);
    struct gradientd_run *run = trainer_open(&options);
    submit_among_wrong(run, submit_copied);
    read_good(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);
}

Test(client_errors, submit_without_gradients) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "missing", NULL);
    struct gradientd_run *run = trainer_open(&options);
    struct gradientd_step step = trainer_step(1);
    cr_assert_eq(gradientd_submit(run, &step, NULL), -EINVAL);
    cr_assert_str_eq(gradientd_last_error(run), "gradients is missing");
    trainer_submit_steps(run, 1, 11);
    trainer_close(run);
}

Test(client_errors, wrong_commit_keeps_the_slot) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "commit", NULL);
    struct gradientd_run *run = trainer_open(&options);
    submit_among_wrong(run, commit_in_place);
    read_good(run);
}

Test(client_errors, submit_between_acquire_and_commit) {
    const struct gradientd_scalar good = {"good", 1.0f};
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "busy", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 10);
    struct gradientd_step step = trainer_step(11);
    step.scalars = &good;
    step.n_scalars = 1;
    float *elements = gradientd_acquire(run);
    trainer_gradient(11, elements);
    cr_assert_eq(submit_copied(run, &step), -EBUSY);
    cr_assert(strstr(gradientd_last_error(run), "acquired"));
    cr_assert_eq(gradientd_commit(run, &step, NULL), GRADIENTD_OK, "%s", gradientd_last_error(run));
    read_good(run);
}

Test(client_errors, wrong_scalars_leave_the_run_as_it_was) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "between", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 11);
    cr_assert_eq(gradientd_scalars(run, -1, 0.0, bad_tags, 1), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"step is -1", "negative"});
    cr_assert_eq(gradientd_scalars(run, 11, (double)NAN, bad_tags, 1), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"wall_time", "nan", "finite"});
    cr_assert_eq(gradientd_scalars(run, 11, 0.0, bad_tags, 2), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"scalars[1].tag"});
    cr_assert_eq(gradientd_scalars(run, 11, 0.0, bad_tags, 1), GRADIENTD_OK, "%s", gradientd_last_error(run));
    cr_assert_eq(gradientd_scalars(run, 11, 0.0, bad_tags, 1), -EINVAL);
    expect_parts(gradientd_last_error(run), (const char *const[3]){"step 11", "not above its last one, 11"});
    read_good(run);
}
