#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "bytes.h"
#include "gradientd/protocol.h"
#include "offences.h"

enum { ELEMENTS_BYTES = RAW_NUMEL * sizeof(float), MUCH_BYTES = 8 << 20 };

// The first step is as it should be, the second has what is wrong with it.
static void begin(struct raw_client *client, struct raw_snapshot *second) {
    static const float elements[RAW_NUMEL] = {1.0f, -2.0f};
    struct raw_snapshot first;
    raw_snapshot_init(&first, 1, 1, 0);
    raw_snapshot_make_inline(&first, ELEMENTS_BYTES, false);
    raw_client_send_inline(client, &first, elements, sizeof(elements));
    raw_snapshot_init(second, 2, 2, 1);
}

// Sends it with the first `payload_bytes` of zeros.
static void send_zeros(struct raw_client *client, const struct raw_snapshot *snapshot, size_t payload_bytes) {
    uint8_t *zeros = calloc(payload_bytes + 1, 1);
    cr_assert(zeros);
    raw_client_send_inline(client, snapshot, zeros, payload_bytes);
    free(zeros);
}

#define RAW(name, bytes, change)                                                                                       \
    OFFENCE(name) {                                                                                                    \
        struct raw_snapshot request;                                                                                   \
        begin(client, &request);                                                                                       \
        raw_snapshot_make_inline(&request, (bytes), false);                                                            \
        change;                                                                                                        \
        send_zeros(client, &request, (bytes));                                                                         \
    }

RAW(no_elements, 0, )
RAW(short_by_one, ELEMENTS_BYTES - 1, )
RAW(long_by_one, ELEMENTS_BYTES + 1, )
RAW(much_too_long, MUCH_BYTES, )
RAW(states_no_bytes, ELEMENTS_BYTES, request.elements.has_inline_bytes = false)
RAW(states_other_bytes, ELEMENTS_BYTES, request.elements.inline_bytes -= 4)
RAW(slot_and_payload, ELEMENTS_BYTES, request.elements.has_slot = true)
RAW(slot_and_bytes, 0, request.elements.has_slot = true)
RAW(slot_and_deflated, 0, request.elements.has_slot = true; request.elements.has_inline_bytes = false;
    request.elements.deflated = request.elements.has_deflated = true)
RAW(sequence_again, ELEMENTS_BYTES, request.message.sequence = 1)
RAW(stream_missing, ELEMENTS_BYTES, request.message.n_streams = 0)

OFFENCE(slot_inline) {
    struct raw_snapshot request;
    begin(client, &request);
    raw_client_send_snapshot(client, &request);
}

OFFENCE(inline_mapped) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 1, 0);
    raw_snapshot_make_inline(&request, ELEMENTS_BYTES, false);
    send_zeros(client, &request, ELEMENTS_BYTES);
}

// ---- deflated

// Sends a payload, and after it, in the same piece, a step with which nothing is wrong.
static void send_deflated(struct raw_client *client, const uint8_t *payload, size_t payload_bytes) {
    struct raw_snapshot request;
    uint8_t bytes[1024];
    size_t frame_bytes, next_bytes;

    begin(client, &request);
    raw_snapshot_make_inline(&request, payload_bytes, true);
    uint8_t *frame = raw_inline_frame(&request, payload, payload_bytes, &frame_bytes);
    raw_snapshot_init(&request, 3, 3, 0);
    raw_snapshot_make_inline(&request, ELEMENTS_BYTES, false);
    uint8_t *next = raw_inline_frame(&request, (uint8_t[ELEMENTS_BYTES]){0}, ELEMENTS_BYTES, &next_bytes);
    cr_assert_leq(frame_bytes + next_bytes, sizeof(bytes));
    memcpy(bytes, frame, frame_bytes);
    memcpy(bytes + frame_bytes, next, next_bytes);
    raw_client_send_bytes(client, bytes, frame_bytes + next_bytes, NULL, 0);
    free(frame);
    free(next);
}

// A zlib stream of `source_bytes` zeros, its end moved by `more` bytes.
static void send_zlib(struct raw_client *client, size_t source_bytes, int more) {
    uint8_t source[2 * ELEMENTS_BYTES] = {0}, payload[256] = {0};
    uLongf bytes = sizeof(payload) / 2;
    cr_assert(source_bytes <= sizeof(source) && compress(payload, &bytes, source, source_bytes) == Z_OK);
    send_deflated(client, payload, (size_t)((long)bytes + more));
}

OFFENCE(deflated_nothing) {
    send_deflated(client, (const uint8_t *)"", 0);
}

OFFENCE(deflated_garbage) {
    send_deflated(client, (const uint8_t *)"there is no such stream", 23);
}

OFFENCE(deflated_dictionary) {
    static const uint8_t with_dictionary[] = {0x78, 0xbb, 0, 0, 0, 1, 3, 0, 0, 0, 0, 1};
    send_deflated(client, with_dictionary, sizeof(with_dictionary));
}

OFFENCE(deflated_more) {
    send_zlib(client, ELEMENTS_BYTES + 1, 0);
}

OFFENCE(deflated_less) {
    send_zlib(client, ELEMENTS_BYTES - 1, 0);
}

OFFENCE(deflated_cut) {
    send_zlib(client, ELEMENTS_BYTES, -1);
}

OFFENCE(deflated_on) {
    send_zlib(client, ELEMENTS_BYTES, 1);
}

// ---- payloads of what takes none, and what else does not belong

static void send_with_payload(struct raw_client *client, Gradientd__ClientMessage *message,
                              Gradientd__ClientMessage__MessageCase kind) {
    message->message_case = kind;
    raw_client_send(client, message, "more", 4);
}

OFFENCE(payload_of_scalars) {
    Gradientd__Scalars scalars = GRADIENTD__SCALARS__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    scalars.sequence = 1;
    message.scalars = &scalars;
    send_with_payload(client, &message, GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS);
}

OFFENCE(payload_of_close_run) {
    Gradientd__CloseRun close_run = GRADIENTD__CLOSE_RUN__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    close_run.sequence = 1;
    close_run.outcome = GRADIENTD__OUTCOME__SUCCESS;
    message.close_run = &close_run;
    send_with_payload(client, &message, GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN);
}

OFFENCE(payload_of_attach) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.attach = &attach;
    send_with_payload(client, &message, GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH);
}

OFFENCE(descriptor_in_payload) {
    struct raw_snapshot request;
    size_t bytes;
    begin(client, &request);
    raw_snapshot_make_inline(&request, ELEMENTS_BYTES, false);
    uint8_t *frame = raw_inline_frame(&request, (uint8_t[ELEMENTS_BYTES]){0}, ELEMENTS_BYTES, &bytes);
    raw_client_send_bytes(client, frame, bytes - 4, NULL, 0);
    raw_client_send_bytes(client, frame + bytes - 4, 2, &client->fd, 1);
    free(frame);
}

// More of the table is announced than a table may have, and none of it sent.
OFFENCE(table_too_long) {
    struct raw_open_run open_run;
    uint8_t header[GRADIENTD_FRAME_HEADER_BYTES], message[256];
    raw_open_run_init(&open_run);
    Gradientd__ClientMessage request = GRADIENTD__CLIENT_MESSAGE__INIT;
    request.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    request.open_run = &open_run.message;
    size_t bytes = gradientd__client_message__get_packed_size(&request);
    cr_assert_leq(bytes, sizeof(message));
    gradientd__client_message__pack(&request, message);
    gd_write_u32le(header, (uint32_t)bytes);
    gd_write_u32le(header + 4, GRADIENTD_TABLE_BYTES_MAX + 1);
    raw_client_send_bytes(client, header, sizeof(header), NULL, 0);
    raw_client_send_bytes(client, message, bytes, NULL, 0);
}

static const struct offence inline_offences[] = {
    {"no_elements", RAW_INLINE, no_elements, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inline_bytes is 0, the elements take 32 bytes"},
    {"short_by_one", RAW_INLINE, short_by_one, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inline_bytes is 31, the elements take 32 bytes"},
    {"long_by_one", RAW_INLINE, long_by_one, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inline_bytes is 33, the elements take 32 bytes"},
    {"much_too_long", RAW_INLINE, much_too_long, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inline_bytes is 8388608, the elements take 32 bytes"},
    {"states_no_bytes", RAW_INLINE, states_no_bytes, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "no slot and inline_bytes 0; the payload has 32"},
    {"states_other_bytes", RAW_INLINE, states_other_bytes, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "no slot and inline_bytes 28; the payload has 32"},
    {"slot_and_payload", RAW_INLINE, slot_and_payload, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 32; elements in a slot take no payload"},
    {"slot_and_bytes", RAW_INLINE, slot_and_bytes, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "both a slot, 1,"},
    {"slot_and_deflated", RAW_INLINE, slot_and_deflated, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "both a slot, 1,"},
    {"sequence_again", RAW_INLINE, sequence_again, GRADIENTD__ERROR_CODE__INVALID, "sequence",
     "sequence is 1, it must be the next one, 2"},
    {"stream_missing", RAW_INLINE, stream_missing, GRADIENTD__ERROR_CODE__UNSUPPORTED, "streams",
     "streams has 0 entries"},
    {"slot_inline", RAW_INLINE, slot_inline, GRADIENTD__ERROR_CODE__INVALID, "streams.slot",
     "this run was attached without memory"},
    {"inline_mapped", RAW_ATTACHED, inline_mapped, GRADIENTD__ERROR_CODE__INVALID, "streams.slot",
     "this run was attached with memory"},
    {"deflated_nothing", RAW_INLINE, deflated_nothing, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inline_bytes is 0"},
    {"deflated_garbage", RAW_INLINE, deflated_garbage, GRADIENTD__ERROR_CODE__INVALID, "streams.deflated",
     "no zlib stream"},
    {"deflated_dictionary", RAW_INLINE, deflated_dictionary, GRADIENTD__ERROR_CODE__INVALID, "streams.deflated",
     "it needs a dictionary"},
    {"deflated_more", RAW_INLINE, deflated_more, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inflates to more than the 32 bytes"},
    {"deflated_less", RAW_INLINE, deflated_less, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "inflates to less than the 32 bytes"},
    {"deflated_cut", RAW_INLINE, deflated_cut, GRADIENTD__ERROR_CODE__INVALID, "streams.deflated",
     "does not end with the payload"},
    {"deflated_on", RAW_INLINE, deflated_on, GRADIENTD__ERROR_CODE__INVALID, "streams.deflated",
     "does not end with the payload"},
    {"payload_of_scalars", RAW_INLINE, payload_of_scalars, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 4; only"},
    {"payload_of_close_run", RAW_INLINE, payload_of_close_run, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 4; only"},
    {"payload_of_attach", RAW_LAID_OUT, payload_of_attach, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 4; only"},
    {"descriptor_in_payload", RAW_INLINE, descriptor_in_payload, GRADIENTD__ERROR_CODE__PROTOCOL, "fds",
     "a descriptor came that no message declares"},
    {"table_too_long", RAW_WELCOME, table_too_long, GRADIENTD__ERROR_CODE__PROTOCOL, "payload_bytes",
     "payload_bytes is 33554433, the limit of OpenRun is 33554432"},
};

struct offences offences_inline(void) {
    return OFFENCES(inline_offences);
}
