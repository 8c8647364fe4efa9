// Inflates the pieces of a payload on the loop's thread pool: 64 KiB can become 64 MiB, which takes a tenth of a second
// that the loop has not got. Belongs to the loop thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "payload.h"

// {0} is idle. It stays where it is while a piece is inflated.
struct gd_inflater {
    uv_work_t work;
    struct gd_payload *payload; // borrowed; the pool's while `busy`
    uint8_t *piece;             // owned, NULL: idle
    size_t piece_bytes;
    int result;
    struct gd_error error;
    // The piece is taken: `result` and `error` are those of gd_payload_take(). Called on the loop thread.
    void (*done)(void *context, int result, struct gd_error *error);
    void *context;
};

static inline bool gd_inflater_is_busy(const struct gd_inflater *inflater) {
    return inflater->piece != NULL;
}

// Copies the next `bytes` bytes of `payload` and takes them on a pool thread, then calls `done`. It must be idle.
// Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_inflater_start(
    struct gd_inflater *inflater, uv_loop_t *loop, struct gd_payload *payload, const uint8_t *data, size_t bytes,
    void (*done)(void *context, int result, struct gd_error *error), void *context);
