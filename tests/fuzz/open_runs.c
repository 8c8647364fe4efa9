#include "open_runs.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "decode.h"
#include "gradientd.pb-c.h"

enum { STARTS_AND_SHADOWS = 8, THINS = 9, HAS_SIDES = 10, IS_OTHER = 11, STREAMS = 4 };

static char run_name[] = "a/b=1,c+d-e_f.g";
static char any[] = "*", one[] = "?*", none[] = "*x*";
static char *include[] = {any, one}, *exclude[] = {none, none};
static Gradientd__StreamKind start_streams[] = {GRADIENTD__STREAM_KIND__START_SECOND_MOMENT,
                                                GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX};
static Gradientd__Rule shadow_rules[] = {GRADIENTD__RULE__AMSGRAD, GRADIENTD__RULE__SGD};
static Gradientd__Rule other_shadow_rules[] = {GRADIENTD__RULE__ADAM, GRADIENTD__RULE__ADAFOM};

static int rule_of(int number) {
    if (number == STARTS_AND_SHADOWS)
        return GRADIENTD__RULE__AMSGRAD;
    if (number == HAS_SIDES)
        return GRADIENTD__RULE__SGD;
    if (number == IS_OTHER)
        return GRADIENTD__RULE__OTHER;
    return number == THINS ? GRADIENTD__RULE__ADAM : number;
}

static void fill_optimizer(Gradientd__Optimizer *optimizer, int rule) {
    *optimizer = (Gradientd__Optimizer)GRADIENTD__OPTIMIZER__INIT;
    optimizer->rule = (Gradientd__Rule)rule;
    optimizer->has_bias_correction = optimizer->bias_correction = rule == GRADIENTD__RULE__RMSPROP;
    optimizer->has_maximum_of = rule == GRADIENTD__RULE__AMSGRAD;
    optimizer->maximum_of = GRADIENTD__MAXIMUM_OF__CORRECTED;
    optimizer->has_initial_accumulator = optimizer->has_learning_rate_decay = rule == GRADIENTD__RULE__ADAGRAD;
    optimizer->initial_accumulator = 0.1;
    optimizer->learning_rate_decay = 0.01;
    optimizer->has_eps_root = rule == GRADIENTD__RULE__ADAM;
    optimizer->eps_root = 1e-15;
    if (rule != GRADIENTD__RULE__ADAGRAD)
        optimizer->initial_accumulator = optimizer->learning_rate_decay = 0.0;
}

static size_t add_group(uint8_t *table, uint32_t index) {
    char name[32];
    int name_bytes = snprintf(name, sizeof(name), "layer%u/w\xc3\xa9ight", index);
    gd_write_u64le(table, 1 + index);
    gd_write_u32le(table + 8, index % 2);
    gd_write_u32le(table + 12, index % 3);
    table[16] = (uint8_t)name_bytes;
    memcpy(table + GRADIENTD_TABLE_ENTRY_BYTES, name, (size_t)name_bytes);
    return GRADIENTD_TABLE_ENTRY_BYTES + (size_t)name_bytes;
}

static void fill_options(Gradientd__OpenRun *body, int number) {
    body->has_per_group = body->per_group = number == GRADIENTD__RULE__ADAFOM;
    body->n_include = body->n_exclude = number == GRADIENTD__RULE__ADAFOM ? 2 : 0;
    body->include = include;
    body->exclude = exclude;
    body->has_fold_depth = number == GRADIENTD__RULE__ADAFOM;
    body->fold_depth = 1;
    body->has_max_lag = body->has_inflight = number > 3;
    body->max_lag = body->inflight = (uint32_t)(number == THINS ? 1 : number);
    body->has_thinning = body->has_absent_counts = body->absent_counts = number > 5;
    body->thinning = number == THINS;
}

static void fill_starts_and_shadows(Gradientd__OpenRun *body, int number) {
    bool both = number == STARTS_AND_SHADOWS;
    body->n_start_streams = both || number == GRADIENTD__RULE__AMSGRAD ? 2 : number == GRADIENTD__RULE__ADAFOM;
    body->start_streams = start_streams;
    body->n_shadow_rules = both || number == GRADIENTD__RULE__ADAGRAD || number == IS_OTHER ? 2 : 0;
    body->shadow_rules = both ? other_shadow_rules : shadow_rules;
}

static void pack(Gradientd__OpenRun *body, struct open_run_message *ret_message) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = body;
    ret_message->message_bytes = gradientd__client_message__get_packed_size(&message);
    assert(ret_message->message_bytes <= sizeof(ret_message->message));
    gradientd__client_message__pack(&message, ret_message->message);
}

// Beside the gradient, which is the first; each with a type and a stride of its own.
static void fill_sides(Gradientd__Stream *streams, Gradientd__Stream **pointers) {
    for (int i = 1; i < STREAMS; i++) {
        streams[i] = (Gradientd__Stream)GRADIENTD__STREAM__INIT;
        streams[i].kind = GRADIENTD__STREAM_KIND__GRADIENT + (Gradientd__StreamKind)i;
        streams[i].element_type = GRADIENTD__ELEMENT_TYPE__F32 + (Gradientd__ElementType)(i - 1);
        streams[i].has_stride = i == STREAMS - 1;
        streams[i].stride = 2;
        pointers[i] = &streams[i];
    }
    streams[STREAMS - 1].has_elements = streams[STREAMS - 1].has_examples = true;
    streams[STREAMS - 1].elements = 6;
    streams[STREAMS - 1].examples = 3;
}

void open_runs_write(int number, struct open_run_message *ret_message) {
    int rule = rule_of(number);
    Gradientd__Stream stream[STREAMS] = {GRADIENTD__STREAM__INIT};
    Gradientd__Stream *streams[STREAMS] = {stream};
    Gradientd__ParameterGroup rates = GRADIENTD__PARAMETER_GROUP__INIT;
    Gradientd__ParameterGroup *parameter_groups[] = {&rates, &rates};
    Gradientd__Optimizer optimizer;
    Gradientd__OpenRun body = GRADIENTD__OPEN_RUN__INIT;

    fill_optimizer(&optimizer, rule);
    fill_sides(stream, streams);
    rates.has_beta2 = rates.has_eps = true;
    rates.beta2 = 0.999;
    rates.eps = 1e-8;
    rates.has_start_learning_rate = rule == GRADIENTD__RULE__AMSGRAD;
    rates.start_learning_rate = 1e-2;
    stream[0].kind = GRADIENTD__STREAM_KIND__GRADIENT;
    stream[0].element_type =
        number == STARTS_AND_SHADOWS ? GRADIENTD__ELEMENT_TYPE__BF16 : GRADIENTD__ELEMENT_TYPE__F32;
    stream[0].has_stride = number == THINS;
    stream[0].stride = 3;
    *ret_message = (struct open_run_message){.table_bytes = 0};
    for (uint32_t i = 0; i < (uint32_t)rule; i++) {
        ret_message->table_bytes += add_group(ret_message->table + ret_message->table_bytes, i);
        stream[0].elements += 1 + i;
    }
    stream[0].has_elements = rule % 2;
    body.run = run_name + 2 * (rule % 2);
    body.wall_time = 1.7e9;
    body.first_step = number == THINS ? 9999 : number;
    body.groups = (uint32_t)rule;
    body.n_streams = number == HAS_SIDES ? STREAMS : 1;
    body.streams = streams;
    body.optimizer = &optimizer;
    body.n_parameter_groups = 2;
    body.parameter_groups = parameter_groups;
    fill_options(&body, number);
    fill_starts_and_shadows(&body, number);
    pack(&body, ret_message);
}

struct gd_open_run *open_runs_read(int number) {
    struct open_run_message written;
    struct gd_arena arena;
    struct gd_decoded decoded;
    struct gd_error error;

    open_runs_write(number, &written);
    struct gd_frame frame = {
        .message = written.message,
        .message_bytes = (uint32_t)written.message_bytes,
        .payload_bytes = (uint32_t)written.table_bytes,
        .head_bytes = GRADIENTD_FRAME_HEADER_BYTES + written.message_bytes,
    };
    int result = gd_arena_init(&arena, GD_DECODE_ARENA_BYTES);
    assert(result == 0);
    result = gd_decode(&frame, &arena, NULL, &decoded, &error);
    assert(result == 0);
    result = gd_open_run_read_table(decoded.open_run, written.table, written.table_bytes, &error);
    assert(result == 0);
    gd_arena_deinit(&arena);
    return decoded.open_run;
}
