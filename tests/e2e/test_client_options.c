// Wrong options: none is taken in silence, each answer names the field, the value and the limit.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "fixture.h"
#include "trainer.h"

TestSuite(client_options, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

#define FIFTY "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwx"
#define LONG_NAME FIFTY FIFTY FIFTY FIFTY FIFTY "abcdef" // 256 bytes

static const struct gradientd_group unnamed[] = {{.name = "", .numel = 1}};
static const struct gradientd_group nameless[] = {{.name = NULL, .numel = 1}};
static const struct gradientd_group control[] = {{.name = "a\nb", .numel = 1}};
static const struct gradientd_group not_utf8[] = {{.name = "\xff", .numel = 1}};
static const struct gradientd_group stray[] = {{.name = "a", .numel = 1},
                                               {.name = "b", .numel = 1, .parameter_group = 1}};
static const struct gradientd_group long_name[] = {{.name = LONG_NAME, .numel = 1}};
static const struct gradientd_group empty[] = {{.name = "a", .numel = 0}};
// One element more than goes inline, and more than counts in 64 bits.
static const struct gradientd_group large[] = {{.name = "a", .numel = 1}, {.name = "b", .numel = 1 << 28}};
static const struct gradientd_group overflowing[] = {{.name = "a", .numel = 1}, {.name = "b", .numel = UINT64_MAX}};
static const enum gradientd_rule own_rule[] = {GRADIENTD_SGD};
static const enum gradientd_rule adam_twice[] = {GRADIENTD_ADAM, GRADIENTD_ADAM};
static const enum gradientd_rule other_rule[] = {GRADIENTD_OTHER};
static const char *const patterns[] = {"*", NULL};
static const char *const empty_pattern[] = {""};
static const char *const long_pattern[] = {"*", LONG_NAME};
static const char *const no_utf8_pattern[] = {"\xc3"};
static const float *const no_vectors[] = {NULL, NULL};
static const struct gradientd_hparam unnamed_hparam[] = {{.name = ""}};
static const struct gradientd_hparam nameless_hparam[] = {{.number = 1.0}};
static const struct gradientd_hparam twice[] = {{.name = "a"}, {.name = "b"}, {.name = "a"}};
static const struct gradientd_hparam nan_hparam[] = {{.name = "a"}, {.name = "b", .number = (double)NAN}};
static const struct gradientd_hparam textless_hparam[] = {{.name = "a", .kind = GRADIENTD_HPARAM_TEXT}};
static const struct gradientd_hparam long_hparam[] = {
    {.name = "a", .kind = GRADIENTD_HPARAM_TEXT, .text = LONG_NAME LONG_NAME LONG_NAME LONG_NAME}};
static const struct gradientd_hparam control_hparam[] = {{.name = "a", .kind = GRADIENTD_HPARAM_TEXT, .text = "a\tb"}};
static const struct gradientd_hparam unknown_hparam[] = {{.name = "a", .kind = (enum gradientd_hparam_kind)3}};
static const struct gradientd_parameter_group bad_beta2[] = {{.beta2 = 1.0}};
static const struct gradientd_parameter_group nan_start_rate[] = {{.start_learning_rate = (double)NAN}};
static const struct gradientd_parameter_group nan_beta2[] = {{.beta2 = (double)NAN}};
static const struct gradientd_parameter_group infinite_eps[] = {{.eps = (double)INFINITY}};
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
SPOIL(run_empty_component, options->run = "a//b")
SPOIL(run_climbing, options->run = "a/../b")
SPOIL(run_escape, options->run = "a\x1b[2J")
SPOIL(run_long, options->run = LONG_NAME)
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
SPOIL(null_parameter_groups, options->parameter_groups = NULL)
SPOIL(group_long, options->groups = long_name; options->n_groups = 1)
SPOIL(group_stray, options->groups = stray; options->n_groups = 2)
SPOIL(group_empty, options->groups = empty; options->n_groups = 1)
SPOIL(lag_zero, options->max_lag = 0)
SPOIL(lag_large, options->max_lag = 33)
SPOIL(inflight_zero, options->inflight = 0)
SPOIL(inflight_large, options->inflight = 65)
SPOIL(copy_threads_zero, options->copy_threads = 0)
SPOIL(copy_threads_large, options->copy_threads = 17)
SPOIL(rule_zero, options->optimizer.rule = (enum gradientd_rule)0)
SPOIL(rule_large, options->optimizer.rule = (enum gradientd_rule)9)
SPOIL(bias_correction_large, options->optimizer.bias_correction = (enum gradientd_bias_correction)3)
SPOIL(bias_correction_of_sgd, options->optimizer.bias_correction = GRADIENTD_BIAS_CORRECTED)
SPOIL(maximum_of_adam, options->optimizer.rule = GRADIENTD_ADAM; options->optimizer.maximum_of = GRADIENTD_CORRECTED)
SPOIL(maximum_large, options->optimizer.rule = GRADIENTD_AMSGRAD;
      options->optimizer.maximum_of = (enum gradientd_maximum_of)4)
SPOIL(eps_root_negative, options->optimizer.eps_root = -1e-8)
SPOIL(accumulator_of_sgd, options->optimizer.initial_accumulator = 0.5)
SPOIL(accumulator_negative, options->optimizer.rule = GRADIENTD_ADAGRAD; options->optimizer.initial_accumulator = -0.5)
SPOIL(decay_of_sgd, options->optimizer.learning_rate_decay = 0.5)
SPOIL(decay_nan, options->optimizer.rule = GRADIENTD_ADAGRAD; options->optimizer.learning_rate_decay = (double)NAN)
SPOIL(beta2_nan, options->parameter_groups = nan_beta2)
SPOIL(eps_infinite, options->parameter_groups = infinite_eps)
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
SPOIL(shadow_twice, options->shadow_rules = adam_twice; options->n_shadow_rules = 2)
SPOIL(shadow_other, options->shadow_rules = other_rule; options->n_shadow_rules = 1)
SPOIL(include_many, options->include = patterns; options->n_include = 65)
SPOIL(include_missing, options->n_include = 1)
SPOIL(include_null, options->include = patterns; options->n_include = 2)
SPOIL(include_not_utf8, options->include = no_utf8_pattern; options->n_include = 1)
SPOIL(exclude_long, options->exclude = long_pattern; options->n_exclude = 2)
SPOIL(fold_depth_large, options->fold_depth = 256)
SPOIL(exclude_many, options->exclude = patterns; options->n_exclude = 65)
SPOIL(exclude_missing, options->n_exclude = 1)
SPOIL(exclude_empty, options->exclude = empty_pattern; options->n_exclude = 1)
SPOIL(hparams_many, options->hparams = twice; options->n_hparams = 257)
SPOIL(hparams_missing, options->n_hparams = 1)
SPOIL(hparam_unnamed, options->hparams = unnamed_hparam; options->n_hparams = 1)
SPOIL(hparam_nameless, options->hparams = nameless_hparam; options->n_hparams = 1)
SPOIL(hparam_twice, options->hparams = twice; options->n_hparams = 3)
SPOIL(hparam_nan, options->hparams = nan_hparam; options->n_hparams = 2)
SPOIL(hparam_textless, options->hparams = textless_hparam; options->n_hparams = 1)
SPOIL(hparam_long, options->hparams = long_hparam; options->n_hparams = 1)
SPOIL(hparam_control, options->hparams = control_hparam; options->n_hparams = 1)
SPOIL(hparam_unknown, options->hparams = unknown_hparam; options->n_hparams = 1)
SPOIL(hparams_group_empty, options->hparams_group = "")
SPOIL(hparams_group_long, options->hparams_group = LONG_NAME)
SPOIL(inline_large, options->transport = GRADIENTD_INLINE; options->groups = large; options->n_groups = 2)
SPOIL(inline_overflow, options->transport = GRADIENTD_INLINE; options->groups = overflowing; options->n_groups = 2)
SPOIL(inline_half_large, options->transport = GRADIENTD_INLINE_DEFLATED; options->groups = large; options->n_groups = 2;
      options->element_type = GRADIENTD_BF16; options->start_second_moment = no_vectors)
SPOIL(start_of_sgd, options->start_second_moment = no_vectors)
SPOIL(maximum_alone, options->optimizer.rule = GRADIENTD_AMSGRAD; options->start_second_moment_max = no_vectors)
SPOIL(maximum_missing, options->optimizer.rule = GRADIENTD_AMSGRAD; options->start_second_moment = no_vectors)
SPOIL(socket_long, options->socket = LONG_NAME)
SPOIL(start_rate_nan, options->parameter_groups = nan_start_rate)
SPOIL(time_nan, options->wall_time = (double)NAN)
SPOIL(time_infinite, options->wall_time = -(double)INFINITY)
SPOIL(connect_negative, options->connect_timeout = -1.0)
SPOIL(stall_negative, options->max_stall = -0.5)
SPOIL(close_nan, options->close_timeout = (double)NAN)

static const struct spoiling spoilings[] = {
    {empty_logdir, EINVAL, {"logdir is empty", "NULL"}},
    {remote_logdir, EINVAL, {"logdir", "gs://bucket/runs", "local"}},
    {file_as_logdir, ENOTDIR, {"/dev/null", "event file"}},
    {run_above, EINVAL, {"run is \"../elsewhere\"", "relative path", "1023"}},
    {run_absolute, EINVAL, {"run is \"/elsewhere\"", "relative path", "1023"}},
    {run_with_space, EINVAL, {"run is \"a b\"", "[A-Za-z0-9._=,+-]", "1023"}},
    {run_empty_component, EINVAL, {"run is \"a//b\"", "1023"}},
    {run_climbing, EINVAL, {"run is \"a/../b\"", "none of them . or ..", "1023"}},
    {run_escape, EINVAL, {"run is \"a?[2J\"", "[A-Za-z0-9._=,+-]", "1023"}},
    {run_long, EINVAL, {"run is \"abcdef", "at most 255 bytes", "1023"}},
    {wrong_bytes, EINVAL, {"options_bytes", "gradientd_options_default"}},
    {no_bytes, EINVAL, {"options_bytes is 0"}},
    {no_groups, EINVAL, {"n_groups is 0", "65536"}},
    {null_groups, EINVAL, {"groups is missing, n_groups is 2"}},
    {many_groups, EINVAL, {"n_groups is 65537", "65536"}},
    {no_parameter_groups, EINVAL, {"n_parameter_groups is 0", "4096"}},
    {many_parameter_groups, EINVAL, {"n_parameter_groups is 4097", "4096"}},
    {null_parameter_groups, EINVAL, {"parameter_groups is missing, n_parameter_groups is 1"}},
    {group_unnamed, EINVAL, {"groups[0].name has 0 bytes", "1 to 255 bytes"}},
    {group_nameless, EINVAL, {"groups[0].name is missing", "1 to 255 bytes"}},
    {group_control, EINVAL, {"groups[0].name has 3 bytes, \"a?b\"", "without control characters"}},
    {group_not_utf8, EINVAL, {"groups[0].name has 1 bytes, \"?\"", "UTF-8"}},
    {group_long, EINVAL, {"groups[0].name has 256 bytes, \"abcdef", "1 to 255 bytes"}},
    {group_stray, EINVAL, {"groups[1].parameter_group is 1", "1"}},
    {group_empty, EBADMSG, {"numel of group 0 is 0", "at least 1"}},
    {lag_zero, EBADMSG, {"max_lag is 0", "1 and 32"}},
    {lag_large, EBADMSG, {"max_lag is 33", "1 and 32"}},
    {inflight_zero, EBADMSG, {"inflight is 0", "1 and 64"}},
    {inflight_large, EBADMSG, {"inflight is 65", "1 and 64"}},
    {copy_threads_zero, EINVAL, {"copy_threads is 0", "1 and 16"}},
    {copy_threads_large, EINVAL, {"copy_threads is 17", "1 and 16"}},
    {rule_zero, EBADMSG, {"rule is 0", "1 and 8"}},
    {rule_large, EBADMSG, {"rule is 9", "1 and 8"}},
    {bias_correction_large, EINVAL, {"bias_correction is 3", "0 and 2"}},
    {bias_correction_of_sgd, EBADMSG, {"bias_correction is set", "only adam"}},
    {maximum_of_adam, EBADMSG, {"maximum_of is set", "only amsgrad"}},
    {maximum_large, EBADMSG, {"maximum_of is 4", "1 and 3"}},
    {eps_root_negative, EBADMSG, {"eps_root is -1e-08", "not negative"}},
    {accumulator_of_sgd, EBADMSG, {"initial_accumulator is 0.5", "only adagrad"}},
    {accumulator_negative, EBADMSG, {"initial_accumulator is -0.5", "not negative"}},
    {decay_of_sgd, EBADMSG, {"learning_rate_decay 0.5", "only adagrad"}},
    {decay_nan, EBADMSG, {"learning_rate_decay is nan", "finite"}},
    {beta2_nan, EBADMSG, {"beta2 is nan", "below 1"}},
    {eps_infinite, EBADMSG, {"eps is inf", "finite"}},
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
    {shadow_of_itself, EBADMSG, {"shadow_rules[0] is 1", "the run's own rule"}},
    {shadow_twice, EBADMSG, {"shadow_rules[1] is 2", "comes twice"}},
    {shadow_other, EBADMSG, {"shadow_rules is 8", "1 and 7"}},
    {include_many, EINVAL, {"n_include is 65", "64"}},
    {include_missing, EINVAL, {"include is missing"}},
    {include_null, EINVAL, {"include[1] is missing", "255"}},
    {include_not_utf8, EINVAL, {"include[0] has 1 bytes, \"?\"", "UTF-8"}},
    {exclude_long, EINVAL, {"exclude[1] has 256 bytes", "255"}},
    {fold_depth_large, EBADMSG, {"fold_depth is 256", "1 and 255"}},
    {exclude_many, EINVAL, {"n_exclude is 65", "64"}},
    {exclude_missing, EINVAL, {"exclude is missing"}},
    {exclude_empty, EINVAL, {"exclude[0] has 0 bytes", "255"}},
    {hparams_many, EINVAL, {"n_hparams is 257", "256"}},
    {hparams_missing, EINVAL, {"hparams is missing", "n_hparams is 1"}},
    {hparam_unnamed, EINVAL, {"hparams[0].name has 0 bytes", "255"}},
    {hparam_nameless, EINVAL, {"hparams[0].name is missing", "255"}},
    {hparam_twice, EINVAL, {"hparams[2].name is that of hparams[0], a", "once"}},
    {hparam_nan, EINVAL, {"hparams[1].number is nan", "finite"}},
    {hparam_textless, EINVAL, {"hparams[0].text is missing", "TEXT"}},
    {hparam_long, EINVAL, {"hparams[0].text has 1024 bytes", "1023"}},
    {hparam_control, EINVAL, {"hparams[0].text has 3 bytes", "control characters"}},
    {hparam_unknown, EINVAL, {"hparams[0].kind is 3", "0 and 2"}},
    {hparams_group_empty, EINVAL, {"hparams_group has 0 bytes", "255"}},
    {hparams_group_long, EINVAL, {"hparams_group has 256 bytes", "255"}},
    {inline_large, EINVAL, {"groups[1].numel is 268435456", "transport inline", "268435456"}},
    {inline_overflow, EINVAL, {"groups[1].numel is 18446744073709551615", "transport inline", "268435456"}},
    {inline_half_large, EINVAL, {"groups[1].numel is 268435456", "transport inline", "268435456"}},
    {start_of_sgd, EBADMSG, {"start_streams[0] is 5", "rule 1 does not hold"}},
    {maximum_alone, EBADMSG, {"start_streams has 1 entries", "amsgrad needs"}},
    {maximum_missing, EBADMSG, {"start_streams has 1 entries", "amsgrad needs"}},
    {socket_long, ENAMETOOLONG, {"no daemon answers at abcdef"}},
    {start_rate_nan, EBADMSG, {"start_learning_rate", "finite"}},
    {time_nan, EINVAL, {"wall_time is nan", "finite"}},
    {time_infinite, EINVAL, {"wall_time is -inf", "finite"}},
    {connect_negative, EINVAL, {"connect_timeout", "-1", "negative"}},
    {stall_negative, EINVAL, {"max_stall", "-0.5", "negative"}},
    {close_nan, EINVAL, {"close_timeout", "nan", "negative"}},
};

static void expect_parts(const char *text, const char *const parts[3]) {
    for (int i = 0; i < 3 && parts[i]; i++)
        cr_assert(strstr(text, parts[i]), "\"%s\" does not say \"%s\"", text, parts[i]);
}

// What is wrong by itself is told without a daemon; for what only a daemon can tell the options are right.
static void expect_checked(const struct gradientd_options *options, const struct spoiling *spoiling) {
    struct gradientd_options elsewhere = *options;
    struct gradientd_error error, expected;
    struct gradientd_run *run;
    memset(&error, 0x7f, sizeof(error)); // what is not set is found
    elsewhere.socket = "/nowhere/socket";
    int result = gradientd_check(&elsewhere, &error);
    cr_assert_eq(result, spoiling->code == EINVAL ? -EINVAL : 0, "%s: %d", spoiling->parts[0], result);
    cr_assert_eq(gradientd_check(&elsewhere, NULL), result, "%s", spoiling->parts[0]);
    cr_assert_eq(error.code, -result, "%s", spoiling->parts[0]);
    cr_assert_eq(*error.text == '\0', result == 0, "%s: %s", spoiling->parts[0], error.text);
    if (result == 0)
        return;
    cr_assert_eq(gradientd_open(&elsewhere, &run, &expected), result, "%s", spoiling->parts[0]);
    cr_assert_str_eq(error.text, expected.text);
}

Test(client_options, each_wrong_one_is_named) {
    size_t fds = scratch_count_fds(0);
    for (size_t i = 0; i < sizeof(spoilings) / sizeof(spoilings[0]); i++) {
        const struct spoiling *spoiling = &spoilings[i];
        struct gradientd_options options = trainer_options(daemon_process.socket, directory, "wrong", NULL);
        struct gradientd_run *run = (struct gradientd_run *)&options; // anything but NULL
        struct gradientd_error error;
        spoiling->apply(&options);
        expect_checked(&options, spoiling);
        int result = gradientd_open(&options, &run, &error);
        cr_assert_eq(result, -spoiling->code, "%s: %d is not %d: %s", spoiling->parts[0], result, -spoiling->code,
                     error.text);
        cr_assert_eq(error.code, spoiling->code, "%s", spoiling->parts[0]);
        cr_assert_null(run, "%s", spoiling->parts[0]);
        expect_parts(error.text, spoiling->parts);
        cr_assert_eq(scratch_count_fds(0), fds, "%s: a descriptor leaked", spoiling->parts[0]);
    }
}
