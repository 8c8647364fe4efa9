// Frames on the socket: u32le message_bytes, u32le payload_bytes, message, payload. No I/O here. A frame's message is
// handled before its payload comes: it says where that goes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct gd_frame {
    const uint8_t *message; // into the caller's bytes
    uint32_t message_bytes;
    uint32_t payload_bytes; // that follow the message
    size_t head_bytes;      // header and message
};

enum gd_frame_result {
    GD_FRAME_INCOMPLETE = 0,
    GD_FRAME_COMPLETE = 1,
};

// Looks for a frame's message at the start of `data`. Returns GD_FRAME_COMPLETE, GD_FRAME_INCOMPLETE (then head_bytes
// is the least number of bytes worth calling again with), or a negative errno with *ret_error set when a size is over
// its limit.
__attribute__((warn_unused_result)) int gd_frame_parse(const uint8_t *data, size_t bytes, struct gd_frame *ret_frame,
                                                       struct gd_error *ret_error);

// Writes a frame's header.
void gd_frame_write_header(uint8_t header[8], uint32_t message_bytes, uint32_t payload_bytes);
