#include "decode_optimizer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static int check_number(const char *field, double value, struct gd_error *ret_error) {
    if (value >= 0.0 && isfinite(value))
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %g, it must be finite and not negative", field,
                        value);
}

static int check_rule(const Gradientd__Optimizer *optimizer, struct gd_error *ret_error) {
    int result = gd_error_check_range("rule", (uint64_t)optimizer->rule, GD_RULE_SGD, GD_RULE_OTHER, ret_error);
    if (result < 0)
        return result;
    if (optimizer->centred)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "centred",
                            "centred is true; centred RMSprop subtracts the mean gradient, whose state is not kept: "
                            "follow it as rule %d, other, which is without the adam/ tags",
                            GD_RULE_OTHER);
    bool amsgrad = optimizer->rule == GRADIENTD__RULE__AMSGRAD;
    if (amsgrad != optimizer->has_maximum_of)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "maximum_of",
                            amsgrad ? "maximum_of is missing; amsgrad must state of what it keeps the maximum"
                                    : "maximum_of is set; only amsgrad keeps a maximum");
    bool may_correct = optimizer->rule == GRADIENTD__RULE__ADAM || optimizer->rule == GRADIENTD__RULE__ADAMW ||
                       optimizer->rule == GRADIENTD__RULE__RMSPROP;
    if (optimizer->has_bias_correction && !may_correct)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "bias_correction",
                            "bias_correction is set; only adam, adamw and rmsprop have it, amsgrad has maximum_of");
    bool adagrad = optimizer->rule == GRADIENTD__RULE__ADAGRAD;
    if (!adagrad && (optimizer->initial_accumulator != 0.0 || optimizer->learning_rate_decay != 0.0))
        return gd_error_set(ret_error, GD_ERROR_INVALID,
                            optimizer->initial_accumulator != 0.0 ? "initial_accumulator" : "learning_rate_decay",
                            "initial_accumulator is %g and learning_rate_decay %g; only adagrad has them",
                            optimizer->initial_accumulator, optimizer->learning_rate_decay);
    return 0;
}

static int read_rule(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    const Gradientd__Optimizer *optimizer = message->optimizer;
    int result = check_rule(optimizer, ret_error);
    if (result == 0)
        result = check_number("eps_root", optimizer->eps_root, ret_error);
    if (result == 0)
        result = check_number("initial_accumulator", optimizer->initial_accumulator, ret_error);
    if (result == 0)
        result = check_number("learning_rate_decay", optimizer->learning_rate_decay, ret_error);
    if (result == 0 && optimizer->has_maximum_of)
        result = gd_error_check_range("maximum_of", (uint64_t)optimizer->maximum_of, GD_MAXIMUM_RAW_THEN_CORRECTED,
                                      GD_MAXIMUM_UNCORRECTED, ret_error);
    if (result < 0)
        return result;

    open_run->adam = (struct gd_adam_config){
        .rule = (enum gd_rule)optimizer->rule,
        .eps_root = optimizer->eps_root,
        .initial_accumulator = optimizer->initial_accumulator,
        .learning_rate_decay = optimizer->learning_rate_decay,
        .absent_counts = message->absent_counts,
    };
    open_run->adam.bias_correction =
        optimizer->has_bias_correction ? optimizer->bias_correction : gd_adam_corrects_by_default(open_run->adam.rule);
    if (optimizer->has_maximum_of)
        open_run->adam.maximum_of = (enum gd_maximum_of)optimizer->maximum_of;
    return 0;
}

static int read_parameter_groups(const Gradientd__OpenRun *message, struct gd_open_run *open_run,
                                 struct gd_error *ret_error) {
    int result = gd_error_check_range("parameter_groups", message->n_parameter_groups, 1,
                                      GRADIENTD_PARAMETER_GROUPS_MAX, ret_error);
    if (result < 0)
        return result;
    open_run->n_parameter_groups = (uint32_t)message->n_parameter_groups;
    open_run->parameter_groups = calloc(message->n_parameter_groups, sizeof(*open_run->parameter_groups));
    open_run->start_learning_rates = calloc(message->n_parameter_groups, sizeof(*open_run->start_learning_rates));
    if (!open_run->parameter_groups || !open_run->start_learning_rates)
        return -ENOMEM;

    for (size_t i = 0; i < message->n_parameter_groups; i++) {
        const Gradientd__ParameterGroup *group = message->parameter_groups[i];
        if (!gd_adam_beta2_is_valid(group->beta2))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "beta2",
                                "parameter_groups[%zu].beta2 is %g, it must be at least 0 and below 1", i,
                                group->beta2);
        if (!gd_adam_eps_is_valid(group->eps))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "eps",
                                "parameter_groups[%zu].eps is %g, it must be finite and not negative", i, group->eps);
        if (group->has_start_learning_rate && !isfinite(group->start_learning_rate))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "start_learning_rate",
                                "parameter_groups[%zu].start_learning_rate is %f, it must be finite", i,
                                group->start_learning_rate);
        open_run->parameter_groups[i] = (struct gd_adam_rates){.beta2 = group->beta2, .eps = group->eps};
        open_run->start_learning_rates[i] = group->has_start_learning_rate ? group->start_learning_rate : (double)NAN;
    }
    return 0;
}

int gd_start_of(Gradientd__StreamKind kind) {
    switch (kind) {
    case GRADIENTD__STREAM_KIND__START_SECOND_MOMENT:
        return GD_START_SECOND_MOMENT;
    case GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX:
        return GD_START_SECOND_MOMENT_MAX;
    case GRADIENTD__STREAM_KIND__START_PARAMETERS:
        return GD_START_PARAMETERS;
    case GRADIENTD__STREAM_KIND__START_OUTPUTS:
        return GD_START_OUTPUTS;
    default:
        return -1;
    }
}

// Which start vector a kind is, one of which the run has what it is the start of; else -EBADMSG with *ret_error set.
static int find_start(const struct gd_open_run *open_run, size_t index, Gradientd__StreamKind kind,
                      struct gd_error *ret_error) {
    uint32_t arrays = gd_adam_state_arrays(&open_run->adam);
    int start = gd_start_of(kind);
    if (start >= (int)GD_STATE_ARRAYS_MAX && !gd_open_run_has_side(open_run, gd_start_side((uint32_t)start)))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                            "start_streams[%zu] is %d; streams must then have %d, too", index, (int)kind,
                            start == GD_START_PARAMETERS ? GRADIENTD__STREAM_KIND__PARAMETERS
                                                         : GRADIENTD__STREAM_KIND__OUTPUTS);
    if (start >= (int)GD_STATE_ARRAYS_MAX || (start >= 0 && start < (int)arrays))
        return start;
    return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                        "start_streams[%zu] is %d, which the state of rule %d does not hold: it has %u of "
                        "START_SECOND_MOMENT (5) and START_SECOND_MOMENT_MAX (6), in this order",
                        index, (int)kind, (int)open_run->adam.rule, arrays);
}

// All arrays of the rule's state are handed over, or none; each of the others by itself.
static int read_start_streams(const Gradientd__OpenRun *message, struct gd_open_run *open_run,
                              struct gd_error *ret_error) {
    uint32_t arrays = (UINT32_C(1) << gd_adam_state_arrays(&open_run->adam)) - 1;
    uint32_t seen = 0;

    for (size_t i = 0; i < message->n_start_streams; i++) {
        Gradientd__StreamKind kind = message->start_streams[i];
        int start = find_start(open_run, i, kind, ret_error);
        if (start < 0)
            return start;
        uint32_t bit = UINT32_C(1) << start;
        if (seen & bit)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams", "start_streams has %d twice", (int)kind);
        seen |= bit;
    }
    if (seen & arrays && (seen & arrays) != arrays)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                            "start_streams has %zu entries; amsgrad needs START_SECOND_MOMENT (5) and "
                            "START_SECOND_MOMENT_MAX (6), or none",
                            message->n_start_streams);
    open_run->starts = seen;
    return 0;
}

static int read_shadow_rules(const Gradientd__OpenRun *message, struct gd_open_run *open_run,
                             struct gd_error *ret_error) {
    uint32_t seen = UINT32_C(1) << open_run->adam.rule;

    for (size_t i = 0; i < message->n_shadow_rules; i++) {
        int result = gd_error_check_range("shadow_rules", (uint64_t)message->shadow_rules[i], GD_RULE_SGD,
                                          GD_RULE_ADAFOM, ret_error);
        if (result < 0)
            return result;
        enum gd_rule rule = (enum gd_rule)message->shadow_rules[i];
        if (seen >> rule & 1)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "shadow_rules",
                                "shadow_rules[%zu] is %d, which is the run's own rule, %d, or comes twice", i,
                                (int)rule, (int)open_run->adam.rule);
        seen |= UINT32_C(1) << rule;
        open_run->shadows[open_run->n_shadows++] = gd_adam_shadow(&open_run->adam, rule);
    }
    return 0;
}

int gd_decode_optimizer(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    int result = read_rule(message, open_run, ret_error);
    if (result == 0)
        result = read_parameter_groups(message, open_run, ret_error);
    if (result == 0)
        result = read_start_streams(message, open_run, ret_error);
    if (result == 0)
        result = read_shadow_rules(message, open_run, ret_error);
    return result;
}
