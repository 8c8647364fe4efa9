#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "gradientd/protocol.h"
#include "offences.h"

#define OPEN_RUN(name, change)                                                                                         \
    OFFENCE(name) {                                                                                                    \
        struct raw_open_run request;                                                                                   \
        raw_open_run_init(&request);                                                                                   \
        Gradientd__OpenRun *open_run = &request.message;                                                               \
        (void)open_run;                                                                                                \
        change;                                                                                                        \
        raw_client_send_open_run(client, &request);                                                                    \
    }

// ---- run

#define RUN(name, text)                                                                                                \
    static char run_##name[] = text;                                                                                   \
    OPEN_RUN(open_##name, open_run->run = run_##name)

static char long_run[GRADIENTD_RUN_BYTES_MAX + 2]; // one byte more than a run's name may have
static char long_component[GRADIENTD_NAME_BYTES_MAX + 2];

RUN(above, "../above")
RUN(parent, "..")
RUN(here, ".")
RUN(climbing, "a/../b")
RUN(climbing_last, "a/b/..")
RUN(absolute, "/etc")
RUN(root, "/")
RUN(empty_component, "a//b")
RUN(empty_last, "a/")
RUN(space, "a b")
RUN(backslash, "a\\b")
RUN(tilde, "~")
RUN(colon, "gs:a")
RUN(umlaut, "\xc3\xbc")
RUN(run_escape, "a\x1b[2Jb")
RUN(run_newline, "a\nb")
RUN(run_not_utf8, "\xff")
OPEN_RUN(open_long_run, open_run->run = long_run)
OPEN_RUN(open_long_component, open_run->run = long_component)

// ---- numbers

OPEN_RUN(open_time_nan, open_run->wall_time = (double)NAN)
OPEN_RUN(open_time_infinite, open_run->wall_time = (double)INFINITY)
OPEN_RUN(open_time_minus_infinite, open_run->wall_time = -(double)INFINITY)
OPEN_RUN(open_first_step, open_run->first_step = -1)
OPEN_RUN(open_lag_zero, open_run->has_max_lag = true)
OPEN_RUN(open_lag, open_run->has_max_lag = true; open_run->max_lag = 33)
OPEN_RUN(open_lag_far, open_run->has_max_lag = true; open_run->max_lag = UINT32_MAX)
OPEN_RUN(open_inflight_zero, open_run->has_inflight = true)
OPEN_RUN(open_inflight, open_run->has_inflight = true; open_run->inflight = 65)

// ---- streams

OPEN_RUN(open_two_streams, request.second_stream.kind = GRADIENTD__STREAM_KIND__GRADIENT; open_run->n_streams = 2)
OPEN_RUN(open_outputs, request.second_stream.kind = GRADIENTD__STREAM_KIND__OUTPUTS; open_run->n_streams = 2)
OPEN_RUN(open_no_stream, open_run->n_streams = 0)
OPEN_RUN(open_parameters, request.stream.kind = GRADIENTD__STREAM_KIND__PARAMETERS)
OPEN_RUN(open_type_zero, request.stream.element_type = (Gradientd__ElementType)0)
OPEN_RUN(open_f64, request.stream.element_type = (Gradientd__ElementType)4)
OPEN_RUN(open_stride, request.stream.has_stride = true)
OPEN_RUN(open_stride_far, request.stream.has_stride = true; request.stream.stride = UINT64_C(1) << 32)
OPEN_RUN(open_elements, request.stream.has_elements = true; request.stream.elements = RAW_NUMEL + 1)
OPEN_RUN(open_elements_zero, request.stream.has_elements = true)

// ---- the optimiser

OPEN_RUN(open_rule_zero, request.optimizer.rule = (Gradientd__Rule)0)
OPEN_RUN(open_rule, request.optimizer.rule = (Gradientd__Rule)9)
OPEN_RUN(open_amsgrad, request.optimizer.rule = GRADIENTD__RULE__AMSGRAD)
OPEN_RUN(open_maximum, request.optimizer.has_maximum_of = true)
OPEN_RUN(open_maximum_far, request.optimizer.rule = GRADIENTD__RULE__AMSGRAD; request.optimizer.has_maximum_of = true;
         request.optimizer.maximum_of = (Gradientd__MaximumOf)4)
OPEN_RUN(open_bias_correction, request.optimizer.has_bias_correction = true)
OPEN_RUN(open_centred, request.optimizer.has_centred = true; request.optimizer.centred = true)
OPEN_RUN(open_accumulator, request.optimizer.has_initial_accumulator = true;
         request.optimizer.initial_accumulator = 0.1)
OPEN_RUN(open_accumulator_nan, request.optimizer.rule = GRADIENTD__RULE__ADAGRAD;
         request.optimizer.has_initial_accumulator = true; request.optimizer.initial_accumulator = (double)NAN)
OPEN_RUN(open_decay, request.optimizer.has_learning_rate_decay = true; request.optimizer.learning_rate_decay = 0.1)
OPEN_RUN(open_decay_negative, request.optimizer.rule = GRADIENTD__RULE__ADAGRAD;
         request.optimizer.has_learning_rate_decay = true; request.optimizer.learning_rate_decay = -0.1)
OPEN_RUN(open_eps_root, request.optimizer.has_eps_root = true; request.optimizer.eps_root = (double)INFINITY)
OPEN_RUN(open_beta2, request.parameter_group.has_beta2 = true; request.parameter_group.beta2 = 1.0)
OPEN_RUN(open_beta2_nan, request.parameter_group.has_beta2 = true; request.parameter_group.beta2 = (double)NAN)
OPEN_RUN(open_eps, request.parameter_group.has_eps = true; request.parameter_group.eps = -1e-8)

// Of an sgd run.
#define SHADOWS(name, ...)                                                                                             \
    static Gradientd__Rule rules_##name[] = {__VA_ARGS__};                                                             \
    OPEN_RUN(name, open_run->shadow_rules = rules_##name;                                                              \
             open_run->n_shadow_rules = sizeof(rules_##name) / sizeof(rules_##name[0]))

SHADOWS(shadow_own, GRADIENTD__RULE__ADAM, GRADIENTD__RULE__SGD)
SHADOWS(shadow_twice, GRADIENTD__RULE__ADAM, GRADIENTD__RULE__AMSGRAD, GRADIENTD__RULE__ADAM)
SHADOWS(shadow_zero, (Gradientd__Rule)0)
SHADOWS(shadow_other, GRADIENTD__RULE__OTHER)

OPEN_RUN(open_no_rates, open_run->n_parameter_groups = 0)

OFFENCE(open_many_rates) {
    static Gradientd__ParameterGroup *groups[GRADIENTD_PARAMETER_GROUPS_MAX + 1];
    struct raw_open_run request;
    raw_open_run_init(&request);
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        groups[i] = &request.parameter_group;
    request.message.parameter_groups = groups;
    request.message.n_parameter_groups = sizeof(groups) / sizeof(groups[0]);
    raw_client_send_open_run(client, &request);
}

// ---- groups

OPEN_RUN(open_no_groups, open_run->groups = 0)
OPEN_RUN(open_many_groups, open_run->groups = GRADIENTD_GROUPS_MAX + 1)
OPEN_RUN(open_short_table, open_run->groups = 2)
OPEN_RUN(open_cut_table, request.table_bytes -= 1)
OPEN_RUN(open_no_table, request.table_bytes = 0)
OPEN_RUN(open_long_table, request.table_bytes += 1)
OPEN_RUN(open_one_group_more, raw_open_run_add_group(&request, "more", 4, 1, 0, 0); open_run->groups = 1)
OPEN_RUN(open_numel, raw_open_run_add_group(&request, "more", 4, 0, 0, 0))
OPEN_RUN(open_numel_sum, raw_open_run_add_group(&request, "more", 4, UINT64_MAX, 0, 0))
OPEN_RUN(open_huge, raw_open_run_add_group(&request, "more", 4, UINT64_C(1) << 39, 0, 0))
OPEN_RUN(open_huge_f16, raw_open_run_add_group(&request, "more", 4, UINT64_C(1) << 39, 0, 0);
         request.stream.element_type = GRADIENTD__ELEMENT_TYPE__F16)
OPEN_RUN(open_group_index, raw_open_run_add_group(&request, "more", 4, 1, 1, 0))
OPEN_RUN(open_group_index_far, raw_open_run_add_group(&request, "more", 4, 1, UINT32_MAX, 0))
OPEN_RUN(open_no_name, raw_open_run_add_group(&request, "", 0, 1, 0, 0))
OPEN_RUN(open_nul, raw_open_run_add_group(&request, "a\0b", 3, 1, 0, 0))

#define GROUP_NAME(name, text) OPEN_RUN(group_##name, raw_open_run_add_group(&request, text, sizeof(text) - 1, 1, 0, 0))
OFFENCES_TEXTS(GROUP_NAME)

// ---- what they are told

#define INVALID(function, field, says)                                                                                 \
    { #function, RAW_WELCOME, function, GRADIENTD__ERROR_CODE__INVALID, field, says }
#define UNSUPPORTED(function, field, says)                                                                             \
    { #function, RAW_WELCOME, function, GRADIENTD__ERROR_CODE__UNSUPPORTED, field, says }
#define QUOTA(function, field, says)                                                                                   \
    { #function, RAW_WELCOME, function, GRADIENTD__ERROR_CODE__QUOTA, field, says }
#define GROUP_NAME_IS(name, text)                                                                                      \
    INVALID(group_##name, "group.name", "it must be 1 to 255 bytes of UTF-8 without control characters"),

static const struct offence opening[] = {
    INVALID(open_above, "run", "run is \"../above\"; it must be a relative path"),
    INVALID(open_parent, "run", "run is \"..\""),
    INVALID(open_here, "run", "run is \".\""),
    INVALID(open_climbing, "run", "run is \"a/../b\""),
    INVALID(open_climbing_last, "run", "run is \"a/b/..\""),
    INVALID(open_absolute, "run", "run is \"/etc\""),
    INVALID(open_root, "run", "run is \"/\""),
    INVALID(open_empty_component, "run", "run is \"a//b\""),
    INVALID(open_empty_last, "run", "run is \"a/\""),
    INVALID(open_space, "run", "run is \"a b\""),
    INVALID(open_backslash, "run", "run is \"a\\b\""),
    INVALID(open_tilde, "run", "run is \"~\""),
    INVALID(open_colon, "run", "run is \"gs:a\""),
    INVALID(open_umlaut, "run", "run is \"\?\?\""),
    INVALID(open_run_escape, "run", "run is \"a?[2Jb\""),
    INVALID(open_run_newline, "run", "run is \"a?b\""),
    INVALID(open_run_not_utf8, "run", "run is \"?\""),
    INVALID(open_long_run, "run", "1023 bytes in all"),
    INVALID(open_long_component, "run", "of at most 255 bytes"),

    INVALID(open_time_nan, "wall_time", "wall_time is nan, it must be finite"),
    INVALID(open_time_infinite, "wall_time", "wall_time is inf, it must be finite"),
    INVALID(open_time_minus_infinite, "wall_time", "wall_time is -inf, it must be finite"),
    INVALID(open_first_step, "first_step", "first_step is -1, it must not be negative"),
    INVALID(open_lag_zero, "max_lag", "max_lag is 0, the limits are 1 and 32"),
    INVALID(open_lag, "max_lag", "max_lag is 33, the limits are 1 and 32"),
    INVALID(open_lag_far, "max_lag", "max_lag is 4294967295, the limits are 1 and 32"),
    INVALID(open_inflight_zero, "inflight", "inflight is 0, the limits are 1 and 64"),
    INVALID(open_inflight, "inflight", "inflight is 65, the limits are 1 and 64"),

    INVALID(open_two_streams, "streams", "streams[1].kind is 1; GRADIENT (1) to OUTPUTS (4) may come once each"),
    INVALID(open_outputs, "examples", "examples is 0, the limits are 1 and 1099511627776"),
    UNSUPPORTED(open_no_stream, "streams", "streams has 0 entries"),
    UNSUPPORTED(open_parameters, "streams", "streams has 1 entries and no GRADIENT"),
    UNSUPPORTED(open_type_zero, "element_type", "element_type is 0; F32 (1), BF16 (2) and F16 (3)"),
    UNSUPPORTED(open_f64, "element_type", "element_type is 4; F32 (1), BF16 (2) and F16 (3)"),
    INVALID(open_stride, "stride", "stride is 0, the limits are 1 and 4294967295"),
    INVALID(open_stride_far, "stride", "stride is 4294967296, the limits are 1 and 4294967295"),
    INVALID(open_elements, "elements", "elements of GRADIENT is 9, the groups' numel add up to 8"),
    INVALID(open_elements_zero, "elements", "elements of GRADIENT is 0, the groups' numel add up to 8"),

    INVALID(open_rule_zero, "rule", "rule is 0, the limits are 1 and 8"),
    INVALID(open_rule, "rule", "rule is 9, the limits are 1 and 8"),
    INVALID(open_amsgrad, "maximum_of", "maximum_of is missing"),
    INVALID(open_maximum, "maximum_of", "only amsgrad keeps a maximum"),
    INVALID(open_maximum_far, "maximum_of", "maximum_of is 4, the limits are 1 and 3"),
    INVALID(open_bias_correction, "bias_correction", "only adam, adamw and rmsprop have it"),
    UNSUPPORTED(open_centred, "centred", "centred is true"),
    INVALID(open_accumulator, "initial_accumulator", "initial_accumulator is 0.1"),
    INVALID(open_accumulator_nan, "initial_accumulator", "initial_accumulator is nan, it must be finite"),
    INVALID(open_decay, "learning_rate_decay", "learning_rate_decay 0.1; only adagrad"),
    INVALID(open_decay_negative, "learning_rate_decay", "learning_rate_decay is -0.1, it must be finite"),
    INVALID(open_eps_root, "eps_root", "eps_root is inf, it must be finite"),
    INVALID(open_beta2, "beta2", "parameter_groups[0].beta2 is 1, it must be at least 0 and below 1"),
    INVALID(open_beta2_nan, "beta2", "parameter_groups[0].beta2 is nan"),
    INVALID(open_eps, "eps", "parameter_groups[0].eps is -1e-08, it must be finite and not negative"),
    INVALID(shadow_own, "shadow_rules", "shadow_rules[1] is 1, which is the run's own rule, 1"),
    INVALID(shadow_twice, "shadow_rules", "shadow_rules[2] is 2, which is the run's own rule, 1, or comes twice"),
    INVALID(shadow_zero, "shadow_rules", "shadow_rules is 0, the limits are 1 and 7"),
    INVALID(shadow_other, "shadow_rules", "shadow_rules is 8, the limits are 1 and 7"),
    INVALID(open_no_rates, "parameter_groups", "parameter_groups is 0, the limits are 1 and 4096"),
    INVALID(open_many_rates, "parameter_groups", "parameter_groups is 4097, the limits are 1 and 4096"),

    INVALID(open_no_groups, "groups", "groups is 0, the limits are 1 and 65536"),
    INVALID(open_many_groups, "groups", "groups is 65537, the limits are 1 and 65536"),
    INVALID(open_short_table, "groups", "ends inside entry 1 of 2"),
    INVALID(open_cut_table, "groups", "ends inside entry 0 of 1"),
    INVALID(open_no_table, "groups", "ends inside entry 0 of 1"),
    INVALID(open_long_table, "groups", "has 1 bytes after entry 1"),
    INVALID(open_one_group_more, "groups", "has 21 bytes after entry 1"),
    INVALID(open_numel, "group.numel", "numel of group 1 is 0; it must be at least 1"),
    INVALID(open_numel_sum, "group.numel", "numel of group 1 is 18446744073709551615"),
    QUOTA(open_huge, "memory", "(8 slots x 549755813896 elements x 4 bytes"),
    QUOTA(open_huge_f16, "memory", "(8 slots x 549755813896 elements x 2 bytes"),
    INVALID(open_group_index, "group.parameter_group", "parameter_group of group 1 is 1, there are 1"),
    INVALID(open_group_index_far, "group.parameter_group", "parameter_group of group 1 is 4294967295, there are 1"),
    INVALID(open_no_name, "group.name", "the name of group 1 has 0 bytes"),
    INVALID(open_nul, "group.name", "the name of group 1 has 3 bytes"),
    OFFENCES_TEXTS(GROUP_NAME_IS)};

struct offences offences_opening(void) {
    memset(long_run, 'a', sizeof(long_run) - 1);
    for (size_t i = 1; i < sizeof(long_run) - 2; i += 2)
        long_run[i] = '/';
    memset(long_component, 'a', sizeof(long_component) - 1);
    return OFFENCES(opening);
}
