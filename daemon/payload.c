#include "payload.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

static int refuse_size(const struct gd_payload *payload, const char *what, struct gd_error *ret_error) {
    return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.inline_bytes",
                        "inline_bytes: the payload %s the %llu bytes of the elements", what,
                        (unsigned long long)payload->destination_bytes);
}

int gd_payload_init(struct gd_payload *payload, uint8_t *destination, uint64_t destination_bytes, uint64_t bytes,
                    bool deflated, struct gd_error *ret_error) {
    *payload = (struct gd_payload){
        .destination_bytes = destination_bytes,
        .left_bytes = bytes,
        .deflated = deflated,
    };
    payload->destination = destination;
    if (deflated ? bytes == 0 : bytes != destination_bytes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.inline_bytes",
                            "inline_bytes is %llu, the elements take %llu bytes", (unsigned long long)bytes,
                            (unsigned long long)destination_bytes);
    if (deflated && inflateInit(&payload->inflater) != Z_OK) {
        payload->deflated = false;
        return -ENOMEM;
    }
    return 0;
}

// What inflate() may fill in one call; its counters have 32 bits.
static unsigned room(const struct gd_payload *payload) {
    uint64_t bytes = payload->destination_bytes - payload->filled_bytes;
    return bytes < UINT_MAX ? (unsigned)bytes : UINT_MAX;
}

// Inflates a piece. A full destination is followed by one byte that nothing may fill: so what inflates to too much is
// known at its first byte too many, however the pieces were cut.
static int inflate_piece(struct gd_payload *payload, const uint8_t *data, uint64_t bytes) {
    z_stream *inflater = &payload->inflater;
    int result;

    inflater->next_in = data;
    inflater->avail_in = (unsigned)bytes;
    do {
        uint8_t excess;
        unsigned offered = room(payload);
        inflater->next_out = offered > 0 ? payload->destination + payload->filled_bytes : &excess;
        inflater->avail_out = offered > 0 ? offered : 1;
        result = inflate(inflater, Z_NO_FLUSH);
        if (offered == 0 && inflater->avail_out == 0)
            return Z_BUF_ERROR;
        if (offered > 0)
            payload->filled_bytes += offered - inflater->avail_out;
    } while (result == Z_OK && (inflater->avail_in > 0 || inflater->avail_out == 0));
    return result == Z_BUF_ERROR ? Z_OK : result; // of zlib's own it says no more than: nothing left to do
}

static int inflate_bytes(struct gd_payload *payload, const uint8_t *data, uint64_t bytes, struct gd_error *ret_error) {
    const z_stream *inflater = &payload->inflater;
    int result = inflate_piece(payload, data, bytes);

    if (result == Z_BUF_ERROR)
        return refuse_size(payload, "inflates to more than", ret_error);
    if (result == Z_DATA_ERROR || result == Z_NEED_DICT)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.deflated",
                            "deflated: the payload is no zlib stream: %s",
                            inflater->msg ? inflater->msg : "it needs a dictionary");
    if (result != Z_OK && result != Z_STREAM_END)
        return -ENOMEM;
    bool last = bytes == payload->left_bytes;
    if (last != (result == Z_STREAM_END) || inflater->avail_in > 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.deflated",
                            "deflated: the zlib stream does not end with the payload");
    if (last && payload->filled_bytes < payload->destination_bytes)
        return refuse_size(payload, "inflates to less than", ret_error);
    return 0;
}

int gd_payload_take(struct gd_payload *payload, const uint8_t *data, uint64_t bytes, struct gd_error *ret_error) {
    assert(bytes > 0 && bytes <= payload->left_bytes);
    if (payload->deflated) {
        int result = inflate_bytes(payload, data, bytes, ret_error);
        if (result < 0)
            return result;
    } else {
        memcpy(payload->destination + payload->filled_bytes, data, bytes);
        payload->filled_bytes += bytes;
    }
    payload->left_bytes -= bytes;
    return 0;
}

void gd_payload_deinit(struct gd_payload *payload) {
    if (payload->deflated)
        inflateEnd(&payload->inflater);
    *payload = (struct gd_payload){0};
}
