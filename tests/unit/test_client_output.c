// The client's unsent bytes: whatever pieces the socket takes, they are those that were appended, in their order.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "../../client/internal.h"
#include "bytes.h"

enum { TAG_BYTES = 255, PAYLOAD_BYTES_MAX = 1 << 21, STREAM_BYTES = 64 << 20 };

static struct client_output output;
static uint8_t *stream; // what was appended, all of it
static size_t appended, consumed;

static void set_up(void) {
    cr_assert_eq(client_output_init(&output), 0);
    stream = malloc(STREAM_BYTES);
    cr_assert(stream);
    appended = consumed = 0;
}

static void tear_down(void) {
    client_output_deinit(&output);
    free(stream);
}

TestSuite(client_output, .init = set_up, .fini = tear_down);

static void note(const void *bytes, size_t count) {
    cr_assert_leq(appended + count, STREAM_BYTES);
    memcpy(stream + appended, bytes, count);
    appended += count;
}

// A message of a size and content of its own.
static int append(uint64_t sequence, size_t tag_bytes, size_t payload_bytes, size_t limit) {
    char tag[TAG_BYTES + 1] = {0};
    memset(tag, 'a' + (int)(sequence % 26), tag_bytes);
    Gradientd__Scalar scalar = GRADIENTD__SCALAR__INIT;
    scalar.tag = tag;
    Gradientd__Scalar *scalars[] = {&scalar};
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    body.sequence = sequence;
    body.n_scalars = 1;
    body.scalars = scalars;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;

    int result = client_output_append(&output, &message, payload_bytes, limit);
    if (result < 0)
        return result;
    uint8_t frame[2 * TAG_BYTES];
    size_t bytes = gradientd__client_message__pack(&message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    gd_write_u32le(frame, (uint32_t)bytes);
    gd_write_u32le(frame + 4, (uint32_t)payload_bytes);
    note(frame, GRADIENTD_FRAME_HEADER_BYTES + bytes);
    return 0;
}

// Takes `bytes` unsent bytes, as far as there are so many.
static void consume(size_t bytes) {
    struct iovec pieces[3];
    int count = client_output_pieces(&output, pieces);
    size_t left = bytes;
    for (int i = 0; i < count && left > 0; i++) {
        size_t part = left < pieces[i].iov_len ? left : pieces[i].iov_len;
        cr_assert_leq(consumed + part, appended, "more than was appended");
        cr_assert_eq(memcmp(pieces[i].iov_base, stream + consumed, part), 0, "wrong bytes from %zu on", consumed);
        consumed += part;
        left -= part;
    }
    client_output_consume(&output, bytes - left);
}

Test(client_output, takes_any_pieces) {
    static uint8_t payload[PAYLOAD_BYTES_MAX];
    srand(1);
    for (uint64_t sequence = 1; appended + PAYLOAD_BYTES_MAX + 2 * TAG_BYTES < STREAM_BYTES; sequence++) {
        size_t payload_bytes = 0;
        if (output.payload_bytes == 0 && rand() % 16 == 0)
            payload_bytes = (size_t)rand() % PAYLOAD_BYTES_MAX + 1;
        int result = append(sequence, (size_t)rand() % TAG_BYTES + 1, payload_bytes, CLIENT_OUTPUT_BYTES_MAX);
        if (result == 0 && payload_bytes > 0) {
            for (size_t i = 0; i < payload_bytes; i++)
                payload[i] = (uint8_t)(i * 31 + sequence);
            note(payload, payload_bytes);
            client_output_add_payload(&output, payload, payload_bytes);
        }
        if (rand() % 4 == 0)
            consume((size_t)rand() % (rand() % 2 ? 64 : 1 << 18));
    }
    cr_assert_not(client_output_is_empty(&output));
    consume(STREAM_BYTES);
    cr_assert_eq(consumed, appended);
    cr_assert(client_output_is_empty(&output));
}

Test(client_output, keeps_messages_up_to_the_limit_beside_a_payload) {
    static const uint8_t payload[1000];
    uint64_t sequence = 1;
    cr_assert_eq(append(sequence, 1, sizeof(payload), CLIENT_OUTPUT_BYTES_MAX), 0);
    note(payload, sizeof(payload));
    client_output_add_payload(&output, payload, sizeof(payload));
    while (append(++sequence, TAG_BYTES, 0, CLIENT_OUTPUT_BYTES_MAX) == 0)
        ;
    cr_assert_eq(append(sequence, TAG_BYTES, 0, CLIENT_OUTPUT_BYTES_MAX), -ENOBUFS);
    size_t messages_bytes = appended - sizeof(payload);
    cr_assert(messages_bytes <= CLIENT_OUTPUT_BYTES_MAX && messages_bytes + 2 * TAG_BYTES > CLIENT_OUTPUT_BYTES_MAX);
    cr_assert_eq(append(sequence, 1, 0, 2 * CLIENT_OUTPUT_BYTES_MAX), 0, "a larger limit makes room");
    consume(STREAM_BYTES);
    cr_assert_eq(consumed, appended);
}
