// The bytes that follow a message, on their way from the socket to where they belong.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>

#include "error.h"

struct gd_payload {
    uint8_t *destination;
    uint64_t destination_bytes;
    uint64_t filled_bytes; // of the destination
    uint64_t left_bytes;   // of the payload: still to come
    bool deflated;
    z_stream inflater; // set up while `deflated`
};

// Begins a payload of `bytes` bytes that is to fill `destination` (borrowed), once inflated where it is `deflated` (a
// zlib stream). Returns 0, -ENOMEM, or -EBADMSG with *ret_error set when a raw payload is not as long as its
// destination. After success gd_payload_deinit() releases what inflating takes.
__attribute__((warn_unused_result)) int gd_payload_init(struct gd_payload *payload, uint8_t *destination,
                                                        uint64_t destination_bytes, uint64_t bytes, bool deflated,
                                                        struct gd_error *ret_error);

// Takes the next `bytes` bytes, at most left_bytes. Returns 0, or -EBADMSG with *ret_error set: bytes that do not
// inflate, or inflate to more than the destination, or, at the last of them, to less.
__attribute__((warn_unused_result)) int gd_payload_take(struct gd_payload *payload, const uint8_t *data, uint64_t bytes,
                                                        struct gd_error *ret_error);

// Takes {0} too, and leaves it behind.
void gd_payload_deinit(struct gd_payload *payload);
