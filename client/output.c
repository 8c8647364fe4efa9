#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "bytes.h"
#include "frame.h"
#include "internal.h"

enum { CAPACITY_BYTES = 2 * (CLIENT_OUTPUT_BYTES_MAX + CLIENT_CLOSE_BYTES) };

int client_output_init(struct client_output *output) {
    *output = (struct client_output){.messages = malloc(CAPACITY_BYTES)};
    return output->messages ? 0 : -ENOMEM;
}

void client_output_deinit(struct client_output *output) {
    free(output->messages);
}

static uint8_t *first_unsent(const struct client_output *output) {
    return output->messages + output->start + output->sent;
}

int client_output_append(struct client_output *output, const Gradientd__ClientMessage *message, size_t payload_bytes,
                         size_t limit) {
    size_t message_bytes = gradientd__client_message__get_packed_size(message);
    size_t frame_bytes = GRADIENTD_FRAME_HEADER_BYTES + message_bytes;
    if (output->sent + output->bytes + frame_bytes > limit)
        return -ENOBUFS;
    if (output->start + output->sent + output->bytes + frame_bytes > CAPACITY_BYTES) {
        memmove(output->messages, output->messages + output->start, output->sent + output->bytes);
        output->start = 0;
    }
    uint8_t *frame = first_unsent(output) + output->bytes;
    gd_frame_write_header(frame, (uint32_t)message_bytes, (uint32_t)payload_bytes);
    gradientd__client_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    output->bytes += frame_bytes;
    return 0;
}

void client_output_add_payload(struct client_output *output, const uint8_t *payload, size_t bytes) {
    output->payload = payload;
    output->payload_bytes = bytes;
    output->payload_at = output->bytes;
}

bool client_output_is_empty(const struct client_output *output) {
    return output->bytes == 0 && output->payload_bytes == 0;
}

int client_output_pieces(const struct client_output *output, struct iovec *vectors) {
    size_t before = output->payload_bytes > 0 ? output->payload_at : output->bytes;
    union {
        const uint8_t *borrowed;
        void *base;
    } payload = {.borrowed = output->payload}; // iovec's field is not const
    const struct iovec pieces[] = {
        {first_unsent(output), before},
        {payload.base, output->payload_bytes},
        {first_unsent(output) + before, output->bytes - before},
    };
    int count = 0;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
        if (pieces[i].iov_len > 0)
            vectors[count++] = pieces[i];
    return count;
}

static void consume_messages(struct client_output *output, size_t bytes) {
    output->bytes -= bytes;
    if (output->keeps)
        output->sent += bytes;
    else
        output->start = output->bytes == 0 ? 0 : output->start + bytes;
}

void client_output_consume(struct client_output *output, size_t bytes) {
    if (output->payload_bytes > 0) {
        size_t before = bytes < output->payload_at ? bytes : output->payload_at;
        consume_messages(output, before);
        output->payload_at -= before;
        bytes -= before;
        size_t payload = bytes < output->payload_bytes ? bytes : output->payload_bytes;
        output->payload += payload;
        output->payload_bytes -= payload;
        bytes -= payload;
    }
    consume_messages(output, bytes);
}

void client_output_trim(struct client_output *output, uint64_t committed_sequence) {
    while (output->sent > 0 && output->first_sequence <= committed_sequence) {
        size_t frame_bytes = GRADIENTD_FRAME_HEADER_BYTES + gd_read_u32le(output->messages + output->start);
        if (frame_bytes >
            output->sent) // a commits word that is ahead of what was sent: not this client's daemon wrote it
            return;
        output->start += frame_bytes;
        output->sent -= frame_bytes;
        output->first_sequence++;
    }
    if (output->sent + output->bytes == 0)
        output->start = 0;
}

void client_output_rewind(struct client_output *output, uint64_t committed_sequence) {
    size_t all = output->sent + output->bytes;
    output->sent = all; // a daemon may have taken a message whose last bytes it read before this client learnt of it
    output->bytes = 0;
    client_output_trim(output, committed_sequence);
    output->bytes = output->sent;
    output->sent = 0;
}
