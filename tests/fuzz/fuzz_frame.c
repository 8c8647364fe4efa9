// Frames as a socket brings them: the input, once whole and once ending at every byte of its first frame's start.
#include <assert.h>
#include <string.h>

#include "frame.h"
#include "fuzz.h"
#include "gradientd/protocol.h"

enum { PREFIX_BYTES_MAX = 16 }; // the header, and a message that begins

// One look at `bytes` bytes; what it says must hold together.
static int parse(const uint8_t *data, size_t bytes, struct gd_frame *ret_frame) {
    struct gd_error error = {0};
    int result = gd_frame_parse(data, bytes, ret_frame, &error);
    if (result < 0) {
        assert(error.code == GD_ERROR_PROTOCOL && error.field && strlen(error.text) > 0);
        return result;
    }
    assert(ret_frame->head_bytes >= GRADIENTD_FRAME_HEADER_BYTES);
    if (result == GD_FRAME_INCOMPLETE) {
        assert(ret_frame->head_bytes > bytes);
        return result;
    }
    assert(ret_frame->head_bytes <= bytes);
    assert(ret_frame->message_bytes <= GRADIENTD_MESSAGE_BYTES_MAX);
    assert(ret_frame->payload_bytes <= GRADIENTD_PAYLOAD_BYTES_MAX);
    assert(ret_frame->message == data + GRADIENTD_FRAME_HEADER_BYTES);
    assert(ret_frame->message + ret_frame->message_bytes == data + ret_frame->head_bytes);
    return result;
}

// However few bytes are there, the verdict is the same or not yet given.
static void parse_prefixes(const uint8_t *data, size_t bytes, int verdict) {
    struct gd_frame frame;
    for (size_t end = 0; end < bytes && end < PREFIX_BYTES_MAX; end++) {
        int result = parse(data, end, &frame);
        assert(result == GD_FRAME_INCOMPLETE || result == verdict);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct gd_frame frame;
    for (size_t at = 0; at <= bytes; at += frame.head_bytes + frame.payload_bytes) {
        int result = parse(data + at, bytes - at, &frame);
        if (at == 0) // the parser remembers nothing: what holds here holds for the frames that follow
            parse_prefixes(data, bytes, result);
        if (result != GD_FRAME_COMPLETE)
            return 0;
        uint8_t header[GRADIENTD_FRAME_HEADER_BYTES];
        gd_frame_write_header(header, frame.message_bytes, frame.payload_bytes);
        assert(memcmp(header, data + at, sizeof(header)) == 0);
    }
    return 0;
}
