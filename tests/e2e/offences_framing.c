#include <criterion/criterion.h>
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

OFFENCE(version_zero) {
    raw_client_say_hello(client, 0);
}

OFFENCE(version_next) {
    raw_client_say_hello(client, GRADIENTD_PROTOCOL_VERSION + 1);
}

OFFENCE(large_message) {
    send_header(client, GRADIENTD_MESSAGE_BYTES_MAX + 1, 0);
}

OFFENCE(large_payload) {
    send_header(client, 2, GRADIENTD_PAYLOAD_BYTES_MAX + 1);
}

OFFENCE(large_both) {
    send_header(client, UINT32_MAX, UINT32_MAX);
}

// ---- messages that are none

#define MESSAGE(name, ...)                                                                                             \
    OFFENCE(name) {                                                                                                    \
        static const uint8_t message[] = {__VA_ARGS__};                                                                \
        send_header(client, sizeof(message), 0);                                                                       \
        raw_client_send_bytes(client, message, sizeof(message), NULL, 0);                                              \
    }

enum { HELLO = 1 << 3 | 2, OPEN_RUN = 2 << 3 | 2, UNKNOWN = 15 << 3 | 2 };

MESSAGE(garbage, 0xff, 0xff, 0xff, 0xff, 0xff)
MESSAGE(http, 'G', 'E', 'T', ' ', '/', ' ', 'H', 'T', 'T', 'P', '/', '1', '.', '1', '\r', '\n')
MESSAGE(body_missing, HELLO)
MESSAGE(body_cut, HELLO, 2, 1 << 3)
MESSAGE(body_long, HELLO, 3, 1 << 3, 1)
MESSAGE(body_huge, HELLO, 0xff, 0xff, 0xff, 0xff, 0x0f)
MESSAGE(version_missing, HELLO, 0)
MESSAGE(version_endless, HELLO, 11, 1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
MESSAGE(version_of_wrong_type, HELLO, 3, 1 << 3 | 2, 1, 'a')
MESSAGE(group_type, HELLO, 2, 1 << 3 | 3, 1 << 3 | 4)
MESSAGE(open_run_empty, OPEN_RUN, 0)
MESSAGE(kind_unknown, UNKNOWN, 0)

OFFENCE(kind_missing) {
    send_header(client, 0, 0);
}

OFFENCE(hungry_message) {
    enum { EMPTY_GROUPS = 400000 }; // 2 bytes each on the wire, 48 and a pointer unpacked
    size_t body_bytes = 2 * EMPTY_GROUPS, bytes = 0;
    uint8_t *message = malloc(16 + body_bytes);
    cr_assert(message);
    message[bytes++] = OPEN_RUN;
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

OFFENCE(payload_of_hello) {
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    raw_client_send(client, &message, "more", 4);
}

// ---- out of order

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

OFFENCE(scalars) {
    raw_client_send_scalars(client, 1, 1, 1.7e9, "loss");
}

OFFENCE(close_run) {
    raw_client_send_close_run(client, 1, GRADIENTD__OUTCOME__SUCCESS);
}

OFFENCE(start_vector) {
    raw_client_send_start_vector(client, 1, GRADIENTD__STREAM_KIND__START_SECOND_MOMENT, 1);
}

OFFENCE(status_request) {
    raw_client_send_status_request(client, 0, 0);
}

OFFENCE(status_request_after_close) {
    close_run(client);
    raw_client_send_status_request(client, 0, 0);
}

OFFENCE(payload_of_status_request) {
    static const uint8_t frame[GRADIENTD_FRAME_HEADER_BYTES + 2 + 4] = {2, 0, 0, 0, 4, 0, 0, 0, 7 << 3 | 2, 0};
    raw_client_send_bytes(client, frame, sizeof(frame), NULL, 0);
}

#define PROTOCOL(function, stage, field, says)                                                                         \
    { #function " at " #stage, stage, function, GRADIENTD__ERROR_CODE__PROTOCOL, field, says }
#define UNSUPPORTED(function, stage, field, says)                                                                      \
    { #function " at " #stage, stage, function, GRADIENTD__ERROR_CODE__UNSUPPORTED, field, says }
#define MALFORMED(function, says) PROTOCOL(function, RAW_CONNECTED, "message", says)

#define STATUS_OUT_OF_ORDER "StatusRequest came out of order"
#define SUBMISSION_OUT_OF_ORDER "Snapshot, Scalars or CloseRun came out of order"

static const struct offence framing[] = {
    UNSUPPORTED(version_zero, RAW_CONNECTED, "protocol_version", "protocol_version is 0, this daemon speaks 1"),
    UNSUPPORTED(version_next, RAW_CONNECTED, "protocol_version", "protocol_version is 2, this daemon speaks 1"),
    PROTOCOL(large_message, RAW_CONNECTED, "message_bytes", "message_bytes is 1048577, the limit is 1048576"),
    PROTOCOL(large_payload, RAW_CONNECTED, "payload_bytes", "payload_bytes is 1073741825, the limit is 1073741824"),
    PROTOCOL(large_both, RAW_CONNECTED, "message_bytes", "message_bytes is 4294967295, the limit is 1048576"),
    PROTOCOL(large_message, RAW_ATTACHED, "message_bytes", "message_bytes is 1048577, the limit is 1048576"),
    MALFORMED(garbage, "a message of 5 bytes is malformed"),
    MALFORMED(http, "a message of 16 bytes is malformed"),
    MALFORMED(body_missing, "a message of 1 bytes is malformed"),
    MALFORMED(body_cut, "a message of 3 bytes is malformed"),
    MALFORMED(body_long, "a message of 4 bytes is malformed"),
    MALFORMED(body_huge, "a message of 6 bytes is malformed"),
    MALFORMED(version_missing, "a message of 2 bytes is malformed"),
    MALFORMED(version_endless, "a message of 13 bytes is malformed"),
    MALFORMED(version_of_wrong_type, "a message of 5 bytes is malformed"),
    MALFORMED(group_type, "a message of 4 bytes is malformed"),
    MALFORMED(open_run_empty, "a message of 2 bytes is malformed"),
    MALFORMED(kind_missing, "of no known kind"),
    MALFORMED(kind_unknown, "of no known kind"),
    MALFORMED(hungry_message, "needs more than 8388608 bytes to unpack"),
    PROTOCOL(garbage, RAW_ATTACHED, "message", "a message of 5 bytes is malformed"),
    PROTOCOL(payload_of_hello, RAW_CONNECTED, "payload_bytes",
             "payload_bytes is 4; only OpenRun, Snapshot and StartVector take a payload"),
    PROTOCOL(open_run, RAW_CONNECTED, "message", "OpenRun came out of order"),
    PROTOCOL(attach, RAW_CONNECTED, "message", "Attach came out of order"),
    PROTOCOL(snapshot, RAW_CONNECTED, "message", SUBMISSION_OUT_OF_ORDER),
    PROTOCOL(status_request, RAW_CONNECTED, "message", STATUS_OUT_OF_ORDER),
    PROTOCOL(status_request, RAW_LAID_OUT, "message", STATUS_OUT_OF_ORDER),
    PROTOCOL(status_request, RAW_ATTACHED, "message", STATUS_OUT_OF_ORDER),
    PROTOCOL(status_request, RAW_INLINE, "message", STATUS_OUT_OF_ORDER),
    PROTOCOL(status_request_after_close, RAW_ATTACHED, "message", STATUS_OUT_OF_ORDER),
    PROTOCOL(payload_of_status_request, RAW_WELCOME, "payload_bytes",
             "payload_bytes is 4; only OpenRun, Snapshot and StartVector take a payload"),
    PROTOCOL(hello, RAW_WELCOME, "message", "Hello came out of order"),
    PROTOCOL(attach, RAW_WELCOME, "message", "Attach came out of order"),
    PROTOCOL(snapshot, RAW_WELCOME, "message", SUBMISSION_OUT_OF_ORDER),
    PROTOCOL(open_run, RAW_LAID_OUT, "message", "OpenRun came out of order"),
    PROTOCOL(snapshot, RAW_LAID_OUT, "message", SUBMISSION_OUT_OF_ORDER),
    PROTOCOL(scalars, RAW_LAID_OUT, "message", SUBMISSION_OUT_OF_ORDER),
    PROTOCOL(close_run, RAW_LAID_OUT, "message", SUBMISSION_OUT_OF_ORDER),
    PROTOCOL(start_vector, RAW_LAID_OUT, "message", SUBMISSION_OUT_OF_ORDER),
    PROTOCOL(hello, RAW_ATTACHED, "message", "Hello came out of order"),
    PROTOCOL(open_run, RAW_ATTACHED, "message", "OpenRun came out of order"),
    PROTOCOL(attach, RAW_ATTACHED, "message", "Attach came out of order"),
};

struct offences offences_framing(void) {
    return OFFENCES(framing);
}
