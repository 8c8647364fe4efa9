#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "bytes.h"
#include "gradientd/protocol.h"
#include "offences.h"

static void send_header(struct raw_client *client, uint32_t message_bytes, uint32_t payload_bytes) {
    uint8_t header[GRADIENTD_FRAME_HEADER_BYTES];
    gd_write_u32le(header, message_bytes);
    gd_write_u32le(header + 4, payload_bytes);
    raw_client_send_bytes(client, header, sizeof(header), NULL, 0);
}

OFFENCE(wrong_version) {
    raw_client_say_hello(client, 2);
}

OFFENCE(large_message) {
    send_header(client, GRADIENTD_MESSAGE_BYTES_MAX + 1, 0);
}

OFFENCE(large_payload) {
    send_header(client, 2, GRADIENTD_PAYLOAD_BYTES_MAX + 1);
}

OFFENCE(malformed) {
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0xff};
    send_header(client, sizeof(garbage), 0);
    raw_client_send_bytes(client, garbage, sizeof(garbage), NULL, 0);
}

OFFENCE(hungry_message) {
    enum { EMPTY_GROUPS = 400000 }; // 2 bytes each on the wire, 48 and a pointer unpacked
    size_t body_bytes = 2 * EMPTY_GROUPS, bytes = 0;
    uint8_t *message = malloc(16 + body_bytes);
    cr_assert(message);
    message[bytes++] = 2 << 3 | 2; // ClientMessage.open_run, a varint of its bytes
    for (size_t left = body_bytes; left > 0; left >>= 7)
        message[bytes++] = (uint8_t)((left & 0x7f) | (left >= 0x80 ? 0x80 : 0));
    for (size_t i = 0; i < EMPTY_GROUPS; i++) {
        message[bytes++] = 7 << 3 | 2; // OpenRun.parameter_groups, empty
        message[bytes++] = 0;
    }
    send_header(client, (uint32_t)bytes, 0);
    raw_client_send_bytes(client, message, bytes, NULL, 0);
    free(message);
}

OFFENCE(empty_message) {
    send_header(client, 0, 0);
}

OFFENCE(payload_of_hello) {
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    raw_client_send(client, &message, "more", 4);
}

OFFENCE(hello) {
    raw_client_say_hello(client, GRADIENTD_PROTOCOL_VERSION);
}

OFFENCE(open_run) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    raw_client_send_open_run(client, &open_run);
}

OFFENCE(attach) {
    Gradientd__Attach nothing = GRADIENTD__ATTACH__INIT;
    raw_client_send_attach(client, &nothing, NULL, 0);
}

OFFENCE(snapshot) {
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(client, &snapshot);
}

OFFENCE(status_request) {
    Gradientd__StatusRequest request = GRADIENTD__STATUS_REQUEST__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST;
    message.status_request = &request;
    raw_client_send(client, &message, NULL, 0);
}

// ---- OpenRun

#define OPEN_RUN(name, change)                                                                                         \
    OFFENCE(name) {                                                                                                    \
        struct raw_open_run request;                                                                                   \
        raw_open_run_init(&request);                                                                                   \
        Gradientd__OpenRun *open_run_message = &request.message;                                                       \
        (void)open_run_message;                                                                                        \
        change;                                                                                                        \
        raw_client_send_open_run(client, &request);                                                                    \
    }

static char run_above[] = "../above", run_escape[] = "a\x1b[2Jb";
static Gradientd__StreamKind start_stream = GRADIENTD__STREAM_KIND__START_PARAMETERS;
static Gradientd__Rule shadow_rule = GRADIENTD__RULE__SGD;

OPEN_RUN(open_above, open_run_message->run = run_above)
OPEN_RUN(open_escape, open_run_message->run = run_escape)
OPEN_RUN(open_time_nan, open_run_message->wall_time = (double)NAN)
OPEN_RUN(open_first_step, open_run_message->first_step = -1)
OPEN_RUN(open_lag, open_run_message->has_max_lag = true; open_run_message->max_lag = 33)
OPEN_RUN(open_inflight, open_run_message->has_inflight = true; open_run_message->inflight = 65)
OPEN_RUN(open_two_streams, open_run_message->n_streams = 2)
OPEN_RUN(open_no_stream, open_run_message->n_streams = 0)
OPEN_RUN(open_f64, request.stream.element_type = (Gradientd__ElementType)4)
OPEN_RUN(open_stride, request.stream.has_stride = true)
OPEN_RUN(open_elements, request.stream.has_elements = true; request.stream.elements = RAW_NUMEL + 1)
OPEN_RUN(open_start, open_run_message->n_start_streams = 1; open_run_message->start_streams = &start_stream)
OPEN_RUN(open_shadow, open_run_message->n_shadow_rules = 1; open_run_message->shadow_rules = &shadow_rule)
OPEN_RUN(open_rule, request.optimizer.rule = (Gradientd__Rule)8)
OPEN_RUN(open_amsgrad, request.optimizer.rule = GRADIENTD__RULE__AMSGRAD)
OPEN_RUN(open_maximum, request.optimizer.has_maximum_of = true)
OPEN_RUN(open_centred, request.optimizer.has_centred = true; request.optimizer.centred = true)
OPEN_RUN(open_accumulator, request.optimizer.has_initial_accumulator = true;
         request.optimizer.initial_accumulator = 0.1)
OPEN_RUN(open_eps_root, request.optimizer.has_eps_root = true; request.optimizer.eps_root = (double)INFINITY)
OPEN_RUN(open_beta2, request.parameter_group.has_beta2 = true; request.parameter_group.beta2 = 1.0)
OPEN_RUN(open_eps, request.parameter_group.has_eps = true; request.parameter_group.eps = -1e-8)
OPEN_RUN(open_no_rates, open_run_message->n_parameter_groups = 0)
OPEN_RUN(open_no_groups, open_run_message->groups = 0)
OPEN_RUN(open_many_groups, open_run_message->groups = GRADIENTD_GROUPS_MAX + 1)
OPEN_RUN(open_short_table, open_run_message->groups = 2)
OPEN_RUN(open_cut_table, request.table_bytes -= 1)
OPEN_RUN(open_long_table, request.table_bytes += 1)
OPEN_RUN(open_numel, raw_open_run_add_group(&request, "more", 4, 0, 0, 0))
OPEN_RUN(open_numel_sum, raw_open_run_add_group(&request, "more", 4, UINT64_MAX, 0, 0))
OPEN_RUN(open_huge, raw_open_run_add_group(&request, "more", 4, UINT64_C(1) << 39, 0, 0))
OPEN_RUN(open_huge_f16, raw_open_run_add_group(&request, "more", 4, UINT64_C(1) << 39, 0, 0);
         request.stream.element_type = GRADIENTD__ELEMENT_TYPE__F16)
OPEN_RUN(open_group_index, raw_open_run_add_group(&request, "more", 4, 1, 1, 0))
OPEN_RUN(open_no_name, raw_open_run_add_group(&request, "", 0, 1, 0, 0))
OPEN_RUN(open_surrogate, raw_open_run_add_group(&request, "\xed\xa0\x80", 3, 1, 0, 0))
OPEN_RUN(open_nul, raw_open_run_add_group(&request, "a\0b", 3, 1, 0, 0))

static const struct offence opening[] = {
    {"wrong_version", RAW_CONNECTED, wrong_version, GRADIENTD__ERROR_CODE__UNSUPPORTED, "protocol_version",
     "protocol_version is 2, this daemon speaks 1"},
    {"large_message", RAW_CONNECTED, large_message, GRADIENTD__ERROR_CODE__PROTOCOL, "message_bytes",
     "message_bytes is 1048577, the limit is 1048576"},
    {"large_payload", RAW_CONNECTED, large_payload, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 1073741825, the limit is 1073741824"},
    {"malformed", RAW_CONNECTED, malformed, GRADIENTD__ERROR_CODE__PROTOCOL, "message",
     "a message of 5 bytes is malformed"},
    {"hungry_message", RAW_CONNECTED, hungry_message, GRADIENTD__ERROR_CODE__PROTOCOL, "message",
     "needs more than 8388608 bytes to unpack"},
    {"empty_message", RAW_CONNECTED, empty_message, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "of no known kind"},
    {"payload_of_hello", RAW_CONNECTED, payload_of_hello, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 4; only OpenRun, Snapshot and StartVector take a payload"},
    {"open_run", RAW_CONNECTED, open_run, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "OpenRun came out of order"},
    {"attach", RAW_CONNECTED, attach, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "Attach came out of order"},
    {"status_request", RAW_WELCOME, status_request, GRADIENTD__ERROR_CODE__UNSUPPORTED, "message",
     "StatusRequest is not supported"},
    {"hello", RAW_WELCOME, hello, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "Hello came out of order"},
    {"attach", RAW_WELCOME, attach, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "Attach came out of order"},
    {"snapshot", RAW_WELCOME, snapshot, GRADIENTD__ERROR_CODE__PROTOCOL, "message",
     "StartVector, Snapshot, Scalars or CloseRun came out of order"},
    {"open_run", RAW_LAID_OUT, open_run, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "OpenRun came out of order"},
    {"snapshot", RAW_LAID_OUT, snapshot, GRADIENTD__ERROR_CODE__PROTOCOL, "message",
     "StartVector, Snapshot, Scalars or CloseRun came out of order"},
    {"hello", RAW_ATTACHED, hello, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "Hello came out of order"},
    {"open_run", RAW_ATTACHED, open_run, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "OpenRun came out of order"},
    {"attach", RAW_ATTACHED, attach, GRADIENTD__ERROR_CODE__PROTOCOL, "message", "Attach came out of order"},
    {"open_above", RAW_WELCOME, open_above, GRADIENTD__ERROR_CODE__INVALID, "run", "run is \"../above\""},
    {"open_escape", RAW_WELCOME, open_escape, GRADIENTD__ERROR_CODE__INVALID, "run", "run is \"a?[2Jb\""},
    {"open_time_nan", RAW_WELCOME, open_time_nan, GRADIENTD__ERROR_CODE__INVALID, "wall_time", "wall_time is nan"},
    {"open_first_step", RAW_WELCOME, open_first_step, GRADIENTD__ERROR_CODE__INVALID, "first_step", "first_step is -1"},
    {"open_lag", RAW_WELCOME, open_lag, GRADIENTD__ERROR_CODE__INVALID, "max_lag",
     "max_lag is 33, the limits are 1 and 32"},
    {"open_inflight", RAW_WELCOME, open_inflight, GRADIENTD__ERROR_CODE__INVALID, "inflight",
     "inflight is 65, the limits are 1 and 64"},
    {"open_two_streams", RAW_WELCOME, open_two_streams, GRADIENTD__ERROR_CODE__UNSUPPORTED, "streams",
     "streams has 2 entries"},
    {"open_no_stream", RAW_WELCOME, open_no_stream, GRADIENTD__ERROR_CODE__UNSUPPORTED, "streams",
     "streams has 0 entries"},
    {"open_f64", RAW_WELCOME, open_f64, GRADIENTD__ERROR_CODE__UNSUPPORTED, "element_type",
     "element_type is 4; F32 (1), BF16 (2) and F16 (3)"},
    {"open_stride", RAW_WELCOME, open_stride, GRADIENTD__ERROR_CODE__INVALID, "stride",
     "stride is 0, the limits are 1 and 4294967295"},
    {"open_elements", RAW_WELCOME, open_elements, GRADIENTD__ERROR_CODE__INVALID, "elements",
     "elements of GRADIENT is 9, the groups' numel add up to 8"},
    {"open_start", RAW_WELCOME, open_start, GRADIENTD__ERROR_CODE__UNSUPPORTED, "start_streams",
     "start_streams[0] is 7"},
    {"open_shadow", RAW_WELCOME, open_shadow, GRADIENTD__ERROR_CODE__INVALID, "shadow_rules",
     "shadow_rules[0] is 1, which is the run's own rule, 1"},
    {"open_rule", RAW_WELCOME, open_rule, GRADIENTD__ERROR_CODE__INVALID, "rule", "rule is 8, the limits are 1 and 7"},
    {"open_amsgrad", RAW_WELCOME, open_amsgrad, GRADIENTD__ERROR_CODE__INVALID, "maximum_of", "maximum_of is missing"},
    {"open_maximum", RAW_WELCOME, open_maximum, GRADIENTD__ERROR_CODE__INVALID, "maximum_of",
     "only amsgrad keeps a maximum"},
    {"open_centred", RAW_WELCOME, open_centred, GRADIENTD__ERROR_CODE__UNSUPPORTED, "centred", "centred is true"},
    {"open_accumulator", RAW_WELCOME, open_accumulator, GRADIENTD__ERROR_CODE__INVALID, "initial_accumulator",
     "initial_accumulator is 0.1"},
    {"open_eps_root", RAW_WELCOME, open_eps_root, GRADIENTD__ERROR_CODE__INVALID, "eps_root", "eps_root is inf"},
    {"open_beta2", RAW_WELCOME, open_beta2, GRADIENTD__ERROR_CODE__INVALID, "beta2", "parameter_groups[0].beta2 is 1"},
    {"open_eps", RAW_WELCOME, open_eps, GRADIENTD__ERROR_CODE__INVALID, "eps", "parameter_groups[0].eps is -1e-08"},
    {"open_no_rates", RAW_WELCOME, open_no_rates, GRADIENTD__ERROR_CODE__INVALID, "parameter_groups",
     "parameter_groups is 0, the limits are 1 and 4096"},
    {"open_no_groups", RAW_WELCOME, open_no_groups, GRADIENTD__ERROR_CODE__INVALID, "groups",
     "groups is 0, the limits are 1 and 65536"},
    {"open_many_groups", RAW_WELCOME, open_many_groups, GRADIENTD__ERROR_CODE__INVALID, "groups",
     "groups is 65537, the limits are 1 and 65536"},
    {"open_short_table", RAW_WELCOME, open_short_table, GRADIENTD__ERROR_CODE__INVALID, "groups",
     "ends inside entry 1 of 2"},
    {"open_cut_table", RAW_WELCOME, open_cut_table, GRADIENTD__ERROR_CODE__INVALID, "groups",
     "ends inside entry 0 of 1"},
    {"open_long_table", RAW_WELCOME, open_long_table, GRADIENTD__ERROR_CODE__INVALID, "groups",
     "has 1 bytes after entry 1"},
    {"open_numel", RAW_WELCOME, open_numel, GRADIENTD__ERROR_CODE__INVALID, "group.numel", "numel of group 1 is 0"},
    {"open_numel_sum", RAW_WELCOME, open_numel_sum, GRADIENTD__ERROR_CODE__INVALID, "group.numel",
     "numel of group 1 is 18446744073709551615"},
    {"open_huge", RAW_WELCOME, open_huge, GRADIENTD__ERROR_CODE__QUOTA, "memory",
     "(8 slots x 549755813896 elements x 4 bytes"},
    {"open_huge_f16", RAW_WELCOME, open_huge_f16, GRADIENTD__ERROR_CODE__QUOTA, "memory",
     "(8 slots x 549755813896 elements x 2 bytes"},
    {"open_group_index", RAW_WELCOME, open_group_index, GRADIENTD__ERROR_CODE__INVALID, "group.parameter_group",
     "parameter_group of group 1 is 1, there are 1"},
    {"open_no_name", RAW_WELCOME, open_no_name, GRADIENTD__ERROR_CODE__INVALID, "group.name",
     "the name of group 1 has 0 bytes"},
    {"open_surrogate", RAW_WELCOME, open_surrogate, GRADIENTD__ERROR_CODE__INVALID, "group.name",
     "the name of group 1 has 3 bytes"},
    {"open_nul", RAW_WELCOME, open_nul, GRADIENTD__ERROR_CODE__INVALID, "group.name",
     "the name of group 1 has 3 bytes"},
};

struct offences offences_opening(void) {
    return OFFENCES(opening);
}
