#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "frame.h"
#include "internal.h"

// An OpenRun and what it points to.
struct description {
    Gradientd__OpenRun open_run;
    Gradientd__Optimizer optimizer;
    Gradientd__RuleThresholds thresholds;
    Gradientd__Stream stream[1 + CLIENT_SIDES];
    Gradientd__Stream *streams[1 + CLIENT_SIDES];
    Gradientd__ParameterGroup *parameter_groups;
    Gradientd__ParameterGroup **parameter_group_pointers;
    Gradientd__StreamKind start_streams[4];
    Gradientd__Rule shadow_rules[GRADIENTD_ADAFOM];
    char *include[GRADIENTD_PATTERNS_MAX];
    char *exclude[GRADIENTD_PATTERNS_MAX];
    struct client_hparams hparams;
};

// protobuf-c's fields are not const, and nothing writes to them before the message is packed.
static char *borrow(const char *text) {
    union {
        const char *borrowed;
        char *field;
    } pointer = {.borrowed = text};
    return pointer.field;
}

static void describe_optimizer(const struct gradientd_options *options, struct description *description) {
    const struct gradientd_optimizer *given = &options->optimizer;
    Gradientd__Optimizer *optimizer = &description->optimizer;
    gradientd__optimizer__init(optimizer);
    optimizer->rule = (Gradientd__Rule)given->rule;
    optimizer->has_bias_correction = given->bias_correction != GRADIENTD_RULE_DEFAULT;
    optimizer->bias_correction = given->bias_correction == GRADIENTD_BIAS_CORRECTED;
    optimizer->has_maximum_of = given->rule == GRADIENTD_AMSGRAD || given->maximum_of != 0;
    optimizer->maximum_of =
        (Gradientd__MaximumOf)(given->maximum_of ? given->maximum_of : GRADIENTD_RAW_THEN_CORRECTED);
    optimizer->has_eps_root = true;
    optimizer->eps_root = given->eps_root;
    optimizer->has_initial_accumulator = given->initial_accumulator != 0.0;
    optimizer->initial_accumulator = given->initial_accumulator;
    optimizer->has_learning_rate_decay = given->learning_rate_decay != 0.0;
    optimizer->learning_rate_decay = given->learning_rate_decay;
    description->open_run.optimizer = optimizer;
}

static void add_stream(struct description *description, Gradientd__StreamKind kind, enum gradientd_element_type type,
                       uint64_t elements, uint32_t stride) {
    static const Gradientd__ElementType types[] = {
        [GRADIENTD_F32] = GRADIENTD__ELEMENT_TYPE__F32,
        [GRADIENTD_BF16] = GRADIENTD__ELEMENT_TYPE__BF16,
        [GRADIENTD_F16] = GRADIENTD__ELEMENT_TYPE__F16,
        [GRADIENTD_F64] = GRADIENTD__ELEMENT_TYPE__F32,
    };
    size_t index = description->open_run.n_streams++;
    Gradientd__Stream *stream = description->streams[index] = &description->stream[index];
    gradientd__stream__init(stream);
    stream->kind = kind;
    stream->element_type = types[type];
    stream->has_elements = true;
    stream->elements = elements;
    stream->has_stride = stride != 1;
    stream->stride = stride;
}

static void describe_streams(const struct gradientd_options *options, uint64_t elements,
                             struct description *description) {
    description->open_run.streams = description->streams;
    add_stream(description, GRADIENTD__STREAM_KIND__GRADIENT, options->element_type, elements, options->stride);
    if (options->probe_gradients.stride > 0)
        add_stream(description, GRADIENTD__STREAM_KIND__PROBE_GRADIENT, options->probe_gradients.element_type, elements,
                   options->probe_gradients.stride);
    if (options->parameters.stride > 0)
        add_stream(description, GRADIENTD__STREAM_KIND__PARAMETERS, options->parameters.element_type, elements,
                   options->parameters.stride);
    if (options->outputs.stride == 0)
        return;
    add_stream(description, GRADIENTD__STREAM_KIND__OUTPUTS, options->outputs.element_type,
               options->output_examples * options->outputs_per_example, options->outputs.stride);
    Gradientd__Stream *outputs = description->streams[description->open_run.n_streams - 1];
    outputs->has_examples = true;
    outputs->examples = options->output_examples;
}

static int describe_parameter_groups(const struct gradientd_options *options, struct description *description) {
    size_t count = options->n_parameter_groups;
    description->parameter_groups = calloc(count, sizeof(*description->parameter_groups));
    description->parameter_group_pointers = calloc(count, sizeof(*description->parameter_group_pointers));
    if (!description->parameter_groups || !description->parameter_group_pointers)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        const struct gradientd_parameter_group *given = &options->parameter_groups[i];
        Gradientd__ParameterGroup *group = &description->parameter_groups[i];
        gradientd__parameter_group__init(group);
        group->has_beta2 = group->has_eps = true;
        group->beta2 = given->beta2;
        group->eps = given->eps;
        group->has_start_learning_rate = given->start_learning_rate != 0.0;
        group->start_learning_rate = given->start_learning_rate;
        description->parameter_group_pointers[i] = group;
    }
    description->open_run.n_parameter_groups = count;
    description->open_run.parameter_groups = description->parameter_group_pointers;
    return 0;
}

static void describe_start(const struct gradientd_options *options, struct description *description) {
    Gradientd__OpenRun *open_run = &description->open_run;
    open_run->start_streams = description->start_streams;
    if (options->start_second_moment)
        description->start_streams[open_run->n_start_streams++] = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT;
    if (options->start_second_moment_max)
        description->start_streams[open_run->n_start_streams++] = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX;
    if (options->start_parameters)
        description->start_streams[open_run->n_start_streams++] = GRADIENTD__STREAM_KIND__START_PARAMETERS;
    if (options->start_outputs)
        description->start_streams[open_run->n_start_streams++] = GRADIENTD__STREAM_KIND__START_OUTPUTS;
}

static void describe_tags(const struct gradientd_options *options, struct description *description) {
    Gradientd__OpenRun *open_run = &description->open_run;
    for (size_t i = 0; i < options->n_shadow_rules; i++)
        description->shadow_rules[i] = (Gradientd__Rule)options->shadow_rules[i];
    open_run->n_shadow_rules = options->n_shadow_rules;
    open_run->shadow_rules = description->shadow_rules;

    open_run->has_per_group = options->per_group != GRADIENTD_PER_GROUP_AUTO;
    open_run->per_group = options->per_group == GRADIENTD_PER_GROUP_ON;
    for (size_t i = 0; i < options->n_include; i++)
        description->include[i] = borrow(options->include[i]);
    open_run->n_include = options->n_include;
    open_run->include = description->include;
    for (size_t i = 0; i < options->n_exclude; i++)
        description->exclude[i] = borrow(options->exclude[i]);
    open_run->n_exclude = options->n_exclude;
    open_run->exclude = description->exclude;
    open_run->has_fold_depth = options->fold_depth != 0;
    open_run->fold_depth = options->fold_depth;
}

// What is 0 is left to the daemon.
static void describe_thresholds(const struct gradientd_thresholds *given, struct description *description) {
    Gradientd__RuleThresholds *thresholds = &description->thresholds;
    gradientd__rule_thresholds__init(thresholds);
    thresholds->has_norm_spike_sd = given->norm_spike_sd != 0.0;
    thresholds->norm_spike_sd = given->norm_spike_sd;
    thresholds->has_rms = given->rms != 0.0;
    thresholds->rms = given->rms;
    thresholds->has_cosine_mean = given->cosine_mean != 0.0;
    thresholds->cosine_mean = given->cosine_mean;
    thresholds->has_oscillation = given->oscillation != 0.0;
    thresholds->oscillation = given->oscillation;
    thresholds->has_zero_group_steps = given->zero_group_steps != 0;
    thresholds->zero_group_steps = given->zero_group_steps;
    thresholds->has_silence_intervals = given->silence_intervals != 0.0;
    thresholds->silence_intervals = given->silence_intervals;
    if (thresholds->has_norm_spike_sd || thresholds->has_rms || thresholds->has_cosine_mean ||
        thresholds->has_oscillation || thresholds->has_zero_group_steps || thresholds->has_silence_intervals)
        description->open_run.thresholds = thresholds;
}

// Returns 0 or -ENOMEM; after either, free_description().
static int describe(const struct gradientd_options *options, uint64_t elements, struct description *description) {
    *description = (struct description){.open_run = GRADIENTD__OPEN_RUN__INIT};
    Gradientd__OpenRun *open_run = &description->open_run;
    open_run->run = borrow(options->run ? options->run : "");
    open_run->wall_time = options->wall_time != 0.0 ? options->wall_time : client_now();
    open_run->first_step = options->first_step;
    open_run->groups = (uint32_t)options->n_groups;
    open_run->has_max_lag = true;
    open_run->max_lag = options->max_lag;
    open_run->has_inflight = true;
    open_run->inflight = options->inflight;
    open_run->has_labels_from_model = options->labels_from_model;
    open_run->labels_from_model = options->labels_from_model;
    open_run->has_absent_counts = true;
    open_run->absent_counts = options->absent_counts;
    open_run->has_thinning = true;
    open_run->thinning = !options->no_thinning;
    describe_optimizer(options, description);
    describe_streams(options, elements, description);
    describe_start(options, description);
    describe_tags(options, description);
    describe_thresholds(&options->thresholds, description);
    int result = describe_parameter_groups(options, description);
    return result < 0 ? result : client_describe_hparams(options, &description->hparams, open_run);
}

static void free_description(struct description *description) {
    free(description->parameter_groups);
    free(description->parameter_group_pointers);
    client_free_hparams(&description->hparams);
}

// The group table, OpenRun's payload. Returns its bytes; `table` may be NULL.
static size_t write_table(const struct gradientd_options *options, uint8_t *table) {
    size_t bytes = 0;
    for (size_t i = 0; i < options->n_groups; i++) {
        const struct gradientd_group *group = &options->groups[i];
        size_t name_bytes = strlen(group->name);
        if (table) {
            uint8_t *entry = table + bytes;
            gd_write_u64le(entry, group->numel);
            gd_write_u32le(entry + 8, group->parameter_group);
            gd_write_u32le(entry + 12, group->step_lag);
            entry[16] = (uint8_t)name_bytes;
            memcpy(entry + GRADIENTD_TABLE_ENTRY_BYTES, group->name, name_bytes);
        }
        bytes += GRADIENTD_TABLE_ENTRY_BYTES + name_bytes;
    }
    return bytes;
}

// Packs the description and the group table into one frame.
static int pack(const struct gradientd_options *options, Gradientd__OpenRun *open_run, uint8_t **ret_frame,
                size_t *ret_bytes, struct gradientd_error *ret_error) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = open_run;
    size_t message_bytes = gradientd__client_message__get_packed_size(&message);
    size_t table_bytes = write_table(options, NULL);
    if (message_bytes > GRADIENTD_MESSAGE_BYTES_MAX || table_bytes > GRADIENTD_TABLE_BYTES_MAX)
        return client_fail(ret_error, EMSGSIZE,
                           "the run's description has %zu and its group table %zu bytes, "
                           "the limits are %d and %d",
                           message_bytes, table_bytes, GRADIENTD_MESSAGE_BYTES_MAX, GRADIENTD_TABLE_BYTES_MAX);
    uint8_t *frame = malloc(GRADIENTD_FRAME_HEADER_BYTES + message_bytes + table_bytes);
    if (!frame)
        return client_fail(ret_error, ENOMEM, "out of memory");
    gd_frame_write_header(frame, (uint32_t)message_bytes, (uint32_t)table_bytes);
    gradientd__client_message__pack(&message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    write_table(options, frame + GRADIENTD_FRAME_HEADER_BYTES + message_bytes);
    *ret_frame = frame;
    *ret_bytes = GRADIENTD_FRAME_HEADER_BYTES + message_bytes + table_bytes;
    return 0;
}

int client_describe(const struct gradientd_options *options, uint64_t elements, uint8_t **ret_frame, size_t *ret_bytes,
                    struct gradientd_error *ret_error) {
    struct description description;
    int result = describe(options, elements, &description);
    if (result < 0)
        client_fail(ret_error, -result, "out of memory");
    else
        result = pack(options, &description.open_run, ret_frame, ret_bytes, ret_error);
    free_description(&description);
    return result;
}
