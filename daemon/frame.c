#include "frame.h"

#include "bytes.h"
#include "gradientd/protocol.h"

int gd_frame_parse(const uint8_t *data, size_t bytes, struct gd_frame *ret_frame, struct gd_error *ret_error) {
    *ret_frame = (struct gd_frame){.head_bytes = GRADIENTD_FRAME_HEADER_BYTES};
    if (bytes < GRADIENTD_FRAME_HEADER_BYTES)
        return GD_FRAME_INCOMPLETE;

    uint32_t message_bytes = gd_read_u32le(data);
    uint32_t payload_bytes = gd_read_u32le(data + 4);
    if (message_bytes > GRADIENTD_MESSAGE_BYTES_MAX)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message_bytes", "message_bytes is %u, the limit is %d",
                            message_bytes, GRADIENTD_MESSAGE_BYTES_MAX);
    if (payload_bytes > GRADIENTD_PAYLOAD_BYTES_MAX)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "payload_bytes", "payload_bytes is %u, the limit is %d",
                            payload_bytes, GRADIENTD_PAYLOAD_BYTES_MAX);

    ret_frame->head_bytes += message_bytes;
    if (bytes < ret_frame->head_bytes)
        return GD_FRAME_INCOMPLETE;
    ret_frame->message = data + GRADIENTD_FRAME_HEADER_BYTES;
    ret_frame->message_bytes = message_bytes;
    ret_frame->payload_bytes = payload_bytes;
    return GD_FRAME_COMPLETE;
}

void gd_frame_write_header(uint8_t header[8], uint32_t message_bytes, uint32_t payload_bytes) {
    gd_write_u32le(header, message_bytes);
    gd_write_u32le(header + 4, payload_bytes);
}
