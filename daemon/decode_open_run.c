#include "decode_open_run.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "decode.h"
#include "text.h"

enum { DEFAULT_MAX_LAG = 5, DEFAULT_INFLIGHT = 2 };

// Far above any memory, and far from where sums of sizes in bytes would overflow 64 bits.
static const uint64_t ELEMENTS_MAX = UINT64_C(1) << 40;

void gd_open_run_free(struct gd_open_run *open_run) {
    if (!open_run)
        return;
    if (open_run->groups)
        for (uint32_t i = 0; i < open_run->n_groups; i++)
            free(open_run->groups[i].name);
    free(open_run->groups);
    free(open_run->parameter_groups);
    free(open_run);
}

static int check_range(const char *field, uint64_t value, uint64_t least, uint64_t most, struct gd_error *ret_error) {
    if (value >= least && value <= most)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %llu, the limits are %llu and %llu", field,
                        (unsigned long long)value, (unsigned long long)least, (unsigned long long)most);
}

static int check_number(const char *field, double value, struct gd_error *ret_error) {
    if (value >= 0.0 && isfinite(value))
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %g, it must be finite and not negative", field,
                        value);
}

static int read_run(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    if (!gd_text_is_run(message->run)) {
        char shown[64];
        gd_text_copy_printable(shown, sizeof(shown), message->run);
        return gd_error_set(ret_error, GD_ERROR_INVALID, "run",
                            "run is \"%s\"; it must be a relative path of components [A-Za-z0-9._=,+-] of at most %d "
                            "bytes, none of them . or .., %d bytes in all",
                            shown, GRADIENTD_NAME_BYTES_MAX, GRADIENTD_RUN_BYTES_MAX);
    }
    strcpy(open_run->run, message->run); // its length was checked

    if (!isfinite(message->wall_time))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "wall_time", "wall_time is %f, it must be finite",
                            message->wall_time);
    if (message->first_step < 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "first_step", "first_step is %lld, it must not be negative",
                            (long long)message->first_step);
    open_run->wall_time = message->wall_time;
    open_run->first_step = message->first_step;
    open_run->thinning = !message->has_thinning || message->thinning;
    open_run->max_lag = message->has_max_lag ? message->max_lag : DEFAULT_MAX_LAG;
    open_run->inflight = message->has_inflight ? message->inflight : DEFAULT_INFLIGHT;

    int result = check_range("max_lag", open_run->max_lag, 1, GRADIENTD_LAG_MAX, ret_error);
    if (result == 0)
        result = check_range("inflight", open_run->inflight, 1, GRADIENTD_INFLIGHT_MAX, ret_error);
    return result;
}

static int read_streams(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    if (message->n_streams != 1 || message->streams[0]->kind != GRADIENTD__STREAM_KIND__GRADIENT)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "streams",
                            "streams has %zu entries; exactly one, GRADIENT, is supported", message->n_streams);
    const Gradientd__Stream *stream = message->streams[0];
    if (stream->element_type != GRADIENTD__ELEMENT_TYPE__F32 && stream->element_type != GRADIENTD__ELEMENT_TYPE__BF16 &&
        stream->element_type != GRADIENTD__ELEMENT_TYPE__F16)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "element_type",
                            "element_type is %d; F32 (1), BF16 (2) and F16 (3) are supported",
                            (int)stream->element_type);
    open_run->element_type = (enum gd_element_type)stream->element_type;
    open_run->stated_elements = stream->has_elements ? stream->elements : UINT64_MAX;
    open_run->stride = stream->has_stride ? stream->stride : 1;
    return check_range("stride", open_run->stride, 1, UINT32_MAX, ret_error);
}

// What the wire can ask for and this daemon does not do: refused, so that nobody waits for charts that never come.
static int check_unsupported(const Gradientd__OpenRun *message, struct gd_error *ret_error) {
    const struct {
        const char *field;
        size_t entries;
    } unsupported[] = {
        {"start_streams", message->n_start_streams},
        {"families", message->n_families},
        {"shadow_rules", message->n_shadow_rules},
        {"per_group", message->per_group ? 1 : 0},
        {"include", message->n_include},
        {"exclude", message->n_exclude},
        {"fold_depth", message->has_fold_depth ? 1 : 0},
        {"thresholds", message->thresholds != NULL},
        {"hparams", message->n_hparams},
        {"hparams_group", message->hparams_group != NULL},
    };
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++)
        if (unsupported[i].entries > 0)
            return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, unsupported[i].field,
                                "%s has %zu entries; it is not supported", unsupported[i].field,
                                unsupported[i].entries);
    return 0;
}

// What a rule says when the message leaves it open.
static bool default_bias_correction(enum gd_rule rule) {
    return rule == GD_RULE_ADAM || rule == GD_RULE_ADAMW;
}

static int check_rule(const Gradientd__Optimizer *optimizer, struct gd_error *ret_error) {
    int result = check_range("rule", (uint64_t)optimizer->rule, GD_RULE_SGD, GD_RULE_ADAFOM, ret_error);
    if (result < 0)
        return result;
    if (optimizer->centred)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "centred",
                            "centred is true; centred RMSprop subtracts the mean gradient, whose state is not kept: "
                            "follow it as sgd for its coherence");
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

static int read_optimizer(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    const Gradientd__Optimizer *optimizer = message->optimizer;
    int result = check_rule(optimizer, ret_error);
    if (result == 0)
        result = check_number("eps_root", optimizer->eps_root, ret_error);
    if (result == 0)
        result = check_number("initial_accumulator", optimizer->initial_accumulator, ret_error);
    if (result == 0)
        result = check_number("learning_rate_decay", optimizer->learning_rate_decay, ret_error);
    if (result == 0 && optimizer->has_maximum_of)
        result = check_range("maximum_of", (uint64_t)optimizer->maximum_of, GD_MAXIMUM_RAW_THEN_CORRECTED,
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
        optimizer->has_bias_correction ? optimizer->bias_correction : default_bias_correction(open_run->adam.rule);
    if (optimizer->has_maximum_of)
        open_run->adam.maximum_of = (enum gd_maximum_of)optimizer->maximum_of;
    return 0;
}

static int read_parameter_groups(const Gradientd__OpenRun *message, struct gd_open_run *open_run,
                                 struct gd_error *ret_error) {
    int result =
        check_range("parameter_groups", message->n_parameter_groups, 1, GRADIENTD_PARAMETER_GROUPS_MAX, ret_error);
    if (result < 0)
        return result;
    open_run->n_parameter_groups = (uint32_t)message->n_parameter_groups;
    open_run->parameter_groups = calloc(message->n_parameter_groups, sizeof(*open_run->parameter_groups));
    if (!open_run->parameter_groups)
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
        open_run->parameter_groups[i] = (struct gd_adam_rates){.beta2 = group->beta2, .eps = group->eps};
    }
    return 0;
}

// Reads one entry; returns its bytes, or a negative errno.
static int64_t read_group(const uint8_t *table, size_t bytes, uint32_t index, struct gd_open_run *open_run,
                          struct gd_error *ret_error) {
    size_t name_bytes = bytes >= GRADIENTD_TABLE_ENTRY_BYTES ? table[16] : 0;
    if (bytes < GRADIENTD_TABLE_ENTRY_BYTES + name_bytes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "groups", "the group table ends inside entry %u of %u", index,
                            open_run->n_groups);
    const char *name = (const char *)table + GRADIENTD_TABLE_ENTRY_BYTES;
    if (name_bytes == 0 || !gd_text_is_clean(name, name_bytes))
        return gd_error_set(
            ret_error, GD_ERROR_INVALID, "group.name",
            "the name of group %u has %zu bytes; it must be 1 to %d bytes of UTF-8 without control characters", index,
            name_bytes, GRADIENTD_NAME_BYTES_MAX);

    struct gd_group *group = &open_run->groups[index];
    group->numel = gd_read_u64le(table);
    group->parameter_group = gd_read_u32le(table + 8);
    group->step_lag = gd_read_u32le(table + 12);
    if (group->numel == 0 || group->numel > ELEMENTS_MAX - open_run->elements)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "group.numel",
                            "numel of group %u is %llu; it must be at least 1, and %llu in all", index,
                            (unsigned long long)group->numel, (unsigned long long)ELEMENTS_MAX);
    if (group->parameter_group >= open_run->n_parameter_groups)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "group.parameter_group",
                            "parameter_group of group %u is %u, there are %u", index, group->parameter_group,
                            open_run->n_parameter_groups);
    open_run->elements += group->numel;
    group->name = strndup(name, name_bytes);
    if (!group->name)
        return -ENOMEM;
    return (int64_t)(GRADIENTD_TABLE_ENTRY_BYTES + name_bytes);
}

// The number of groups and the table's size; their entries come with the payload.
static int read_groups(const Gradientd__OpenRun *message, const struct gd_frame *frame, struct gd_open_run *open_run,
                       struct gd_error *ret_error) {
    int result = check_range("groups", message->groups, 1, GRADIENTD_GROUPS_MAX, ret_error);
    if (result < 0)
        return result;
    if (frame->payload_bytes > GRADIENTD_TABLE_BYTES_MAX)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "payload_bytes",
                            "payload_bytes is %u, the limit of OpenRun is %d", frame->payload_bytes,
                            GRADIENTD_TABLE_BYTES_MAX);
    open_run->groups = calloc(message->groups, sizeof(*open_run->groups));
    if (!open_run->groups)
        return -ENOMEM;
    open_run->n_groups = message->groups;
    return 0;
}

// FNV-1a, 64 bits: two OpenRuns of one trainer that differ by accident share a digest once in 2^64.
static uint64_t digest(uint64_t hash, const uint8_t *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int gd_decode_open_run(const Gradientd__OpenRun *message, const struct gd_frame *frame,
                       struct gd_open_run **ret_open_run, struct gd_error *ret_error) {
    struct gd_open_run *open_run = calloc(1, sizeof(*open_run));
    if (!open_run)
        return -ENOMEM;

    int result = read_run(message, open_run, ret_error);
    if (result == 0)
        result = read_streams(message, open_run, ret_error);
    if (result == 0)
        result = check_unsupported(message, ret_error);
    if (result == 0)
        result = read_optimizer(message, open_run, ret_error);
    if (result == 0)
        result = read_parameter_groups(message, open_run, ret_error);
    if (result == 0)
        result = read_groups(message, frame, open_run, ret_error);
    if (result < 0) {
        gd_open_run_free(open_run);
        return result;
    }
    open_run->digest = digest(UINT64_C(0xcbf29ce484222325), frame->message, frame->message_bytes);
    *ret_open_run = open_run;
    return 0;
}

int gd_open_run_read_table(struct gd_open_run *open_run, const uint8_t *table, size_t bytes,
                           struct gd_error *ret_error) {
    size_t at = 0;
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        int64_t entry_bytes = read_group(table + at, bytes - at, i, open_run, ret_error);
        if (entry_bytes < 0)
            return (int)entry_bytes;
        at += (size_t)entry_bytes;
    }
    if (at != bytes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "groups", "the group table has %zu bytes after entry %u",
                            bytes - at, open_run->n_groups);
    if (open_run->stated_elements != UINT64_MAX && open_run->stated_elements != open_run->elements)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "elements",
                            "elements of GRADIENT is %llu, the groups' numel add up to %llu",
                            (unsigned long long)open_run->stated_elements, (unsigned long long)open_run->elements);
    open_run->digest = digest(open_run->digest, table, bytes);
    return 0;
}
