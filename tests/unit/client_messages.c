#include "client_messages.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

struct message m;

void put_group(uint64_t numel, uint32_t parameter_group, uint32_t step_lag, const char *name) {
    size_t name_bytes = strlen(name);
    uint8_t *entry = m.table + m.table_bytes;

    cr_assert(name_bytes < 256 && m.table_bytes + 17 + name_bytes <= sizeof(m.table));
    gd_write_u64le(entry, numel);
    gd_write_u32le(entry + 8, parameter_group);
    gd_write_u32le(entry + 12, step_lag);
    entry[16] = (uint8_t)name_bytes;
    memcpy(entry + 17, name, name_bytes);
    m.table_bytes += 17 + (uint32_t)name_bytes;
}

void make_open_run(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__open_run__init(&m.open_run);
    gradientd__stream__init(&m.stream);
    gradientd__optimizer__init(&m.optimizer);
    gradientd__rule_thresholds__init(&m.thresholds);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    m.client.open_run = &m.open_run;

    m.open_run.run = strcpy(m.text, "digits/adam");
    m.open_run.wall_time = 1700000000.5;
    m.open_run.first_step = 1;
    m.stream.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    m.stream.element_type = GRADIENTD__ELEMENT_TYPE__F32;
    m.streams[0] = m.streams[1] = &m.stream;
    m.open_run.streams = m.streams;
    m.open_run.n_streams = 1;
    m.optimizer.rule = GRADIENTD__RULE__ADAM;
    m.open_run.optimizer = &m.optimizer;
    for (size_t i = 0; i < PARAMETER_GROUPS_MAX; i++) {
        gradientd__parameter_group__init(&m.parameter_group[i]);
        m.parameter_groups[i] = &m.parameter_group[i];
        m.parameter_group[i].has_beta2 = m.parameter_group[i].has_eps = true;
        m.parameter_group[i].beta2 = 0.999;
        m.parameter_group[i].eps = 1e-8;
    }
    m.open_run.parameter_groups = m.parameter_groups;
    m.open_run.n_parameter_groups = 2;
    m.start_streams[0] = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT;
    m.start_streams[1] = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX;
    m.open_run.start_streams = m.start_streams;
    m.shadow_rules[0] = GRADIENTD__RULE__AMSGRAD;
    m.open_run.shadow_rules = m.shadow_rules;
    m.open_run.include = m.open_run.exclude = m.patterns;
    m.open_run.groups = 2;
    put_group(100, 0, 0, "weight");
    put_group(10, 1, 3, "bias");
}

void put_hparams(size_t n) {
    for (size_t i = 0; i < n; i++) {
        gradientd__hparam__init(&m.hparam[i]);
        m.hparams[i] = &m.hparam[i];
        snprintf(m.hparam_names[i], sizeof(m.hparam_names[i]), "%zu", i);
        m.hparam[i].name = m.hparam_names[i];
        m.hparam[i].value_case = GRADIENTD__HPARAM__VALUE_NUMBER;
        m.hparam[i].number = (double)i / 2;
    }
    m.open_run.hparams = m.hparams;
    m.open_run.n_hparams = n;
}

static void make_scalar_list(void) {
    for (size_t i = 0; i < SCALARS_MAX; i++) {
        gradientd__scalar__init(&m.scalar[i]);
        m.scalar_list[i] = &m.scalar[i];
        m.scalar[i].tag = strcpy(m.text, "train/loss");
        m.scalar[i].value = 0.25f;
    }
}

void make_snapshot(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__snapshot__init(&m.snapshot);
    gradientd__stream_elements__init(&m.elements);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    m.client.snapshot = &m.snapshot;

    m.snapshot.sequence = 7;
    m.snapshot.step = 6;
    m.snapshot.wall_time = 1700000001.5;
    m.elements.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    m.elements.has_slot = true;
    m.elements.slot = 4;
    m.elements_list[0] = m.elements_list[1] = &m.elements;
    m.snapshot.streams = m.elements_list;
    m.snapshot.n_streams = 1;
    for (size_t i = 0; i < PARAMETER_GROUPS_MAX; i++) {
        gradientd__parameter_group_step__init(&m.rates[i]);
        m.rates_list[i] = &m.rates[i];
        m.rates[i].learning_rate = 0.01 * (double)(i + 1);
    }
    m.snapshot.parameter_groups = m.rates_list;
    m.snapshot.n_parameter_groups = 2;
    make_scalar_list();
    m.snapshot.scalars = m.scalar_list;
    m.snapshot.n_scalars = 1;
}

void put_squared_norms(size_t n, size_t n_per_group) {
    m.snapshot.has_batch_size = true;
    m.snapshot.batch_size = 64.0;
    m.snapshot.squared_norms = m.squared_norms;
    m.snapshot.n_squared_norms = n;
    for (size_t i = 0; i < n; i++) {
        gradientd__squared_norm__init(&m.squared_norm[i]);
        m.squared_norms[i] = &m.squared_norm[i];
        m.squared_norm[i].batch_size = 8.0;
        m.squared_norm[i].value = 2.0;
        m.squared_norm[i].per_group = m.group_norms;
        m.squared_norm[i].n_per_group = n_per_group;
    }
}

void make_start_vector(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__start_vector__init(&m.start_vector);
    gradientd__stream_elements__init(&m.elements);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
    m.client.start_vector = &m.start_vector;
    m.start_vector.sequence = 1;
    m.start_vector.optimizer_step = 500;
    m.elements.kind = GRADIENTD__STREAM_KIND__START_SECOND_MOMENT;
    m.elements.has_slot = true;
    m.start_vector.elements = &m.elements;
}

void make_scalars(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__scalars__init(&m.scalars);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    m.client.scalars = &m.scalars;
    m.scalars.sequence = 8;
    m.scalars.step = 6;
    m.scalars.wall_time = 1700000002.5;
    make_scalar_list();
    m.scalars.scalars = m.scalar_list;
    m.scalars.n_scalars = 1;
}

void make_close_run(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__close_run__init(&m.close_run);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    m.client.close_run = &m.close_run;
    m.close_run.sequence = 9;
    m.close_run.outcome = GRADIENTD__OUTCOME__SUCCESS;
}

void make_hello(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__hello__init(&m.hello);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    m.client.hello = &m.hello;
    m.hello.protocol_version = 1;
}

void make_attach(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__attach__init(&m.attach);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH;
    m.client.attach = &m.attach;
}

void make_status_request(void) {
    memset(&m, 0, sizeof(m));
    gradientd__client_message__init(&m.client);
    gradientd__status_request__init(&m.status_request);
    m.client.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST;
    m.client.status_request = &m.status_request;
}

struct gd_arena arena;
struct gd_decoded decoded;
struct gd_error error;

void new_arena(void) {
    cr_assert_eq(gd_arena_init(&arena, GD_DECODE_ARENA_BYTES), 0);
}

void free_arena(void) {
    gd_arena_deinit(&arena);
}

void free_decoded(void) {
    if (decoded.kind == GD_CLIENT_OPEN_RUN)
        gd_open_run_free(decoded.open_run);
    else if (decoded.kind == GD_CLIENT_SUBMISSION)
        free(decoded.submission);
}

// Message and payload are copied to blocks of their size, where a sanitizer sees a read beyond the end.
int decode_bytes(const uint8_t *message, size_t message_bytes, const uint8_t *payload, size_t payload_bytes) {
    uint8_t *copies[2] = {malloc(message_bytes ? message_bytes : 1), malloc(payload_bytes ? payload_bytes : 1)};
    cr_assert(copies[0] && copies[1]);
    memcpy(copies[0], message, message_bytes);
    memcpy(copies[1], payload, payload_bytes);
    struct gd_frame frame = {
        .message = copies[0],
        .message_bytes = (uint32_t)message_bytes,
        .payload_bytes = (uint32_t)payload_bytes,
        .head_bytes = 8 + message_bytes,
    };
    error = (struct gd_error){.field = "", .text = ""};
    memset(&decoded, 0xa5, sizeof(decoded)); // a failure may not touch it
    int result = gd_decode(&frame, &arena, NULL, &decoded, &error);
    if (result == 0 && decoded.kind == GD_CLIENT_OPEN_RUN) {
        result = gd_open_run_read_table(decoded.open_run, copies[1], payload_bytes, &error);
        if (result < 0) {
            free_decoded();
            memset(&decoded, 0xa5, sizeof(decoded));
        }
    }
    free(copies[0]);
    free(copies[1]);
    return result;
}

uint8_t *pack(size_t *ret_bytes) {
    *ret_bytes = gradientd__client_message__get_packed_size(&m.client);
    uint8_t *packed = malloc(*ret_bytes ? *ret_bytes : 1);
    cr_assert_not_null(packed);
    gradientd__client_message__pack(&m.client, packed);
    return packed;
}

int decode(void) {
    size_t bytes;
    uint8_t *packed = pack(&bytes);
    int result = decode_bytes(packed, bytes, m.table, m.table_bytes);
    free(packed);
    return result;
}

bool is_untouched(void) {
    const uint8_t *bytes = (const uint8_t *)&decoded;
    for (size_t i = 0; i < sizeof(decoded); i++)
        if (bytes[i] != 0xa5)
            return false;
    return true;
}

void expect_accepted(const char *what) {
    int result = decode();
    cr_expect_eq(result, 0, "%s: %d %s", what, result, error.text);
    if (result == 0)
        free_decoded();
}

void expect_refused(const char *what, enum gd_error_code code, const char *field, const char *value,
                    const char *limit) {
    int result = decode();
    cr_expect_eq(result, -EBADMSG, "%s: %d", what, result);
    if (result == 0) {
        free_decoded();
        return;
    }
    cr_expect_eq(error.code, code, "%s: code %d, %s", what, (int)error.code, error.text);
    cr_expect_str_eq(error.field, field, "%s: %s", what, error.text);
    cr_expect_not_null(strstr(error.text, value), "%s: no value %s in: %s", what, value, error.text);
    cr_expect_not_null(strstr(error.text, limit), "%s: no limit %s in: %s", what, limit, error.text);
    cr_expect(is_untouched(), "%s", what);
}
