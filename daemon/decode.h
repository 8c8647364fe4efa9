// Messages of a client, from bytes to validated plain structs. Every limit a field alone can break is checked here;
// what depends on the run (sequence, slots, steps) is checked by run.h. A failed call returns -EBADMSG with *ret_error
// set, or -ENOMEM, and leaves its other outputs untouched.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "error.h"
#include "frame.h"
#include "message.h"

enum {
    // What unpacking one message may take: a Snapshot with 1,024 scalars and 4,096 parameter groups takes 0.6 MiB.
    GD_DECODE_ARENA_BYTES = 8 << 20,
};

enum gd_client_message {
    GD_CLIENT_HELLO,
    GD_CLIENT_OPEN_RUN,
    GD_CLIENT_ATTACH,
    GD_CLIENT_SUBMISSION,
    GD_CLIENT_STATUS_REQUEST,
};

struct gd_hello {
    uint32_t protocol_version;
    char client[64]; // printable
};

// Which descriptors an Attach declares.
struct gd_attach {
    bool memory;
    bool event_file;
    bool pidfd;
};

struct gd_status_request {
    uint64_t runs_after;   // runs with a number above it
    uint64_t alerts_after; // UINT64_MAX: no alerts
};

struct gd_decoded {
    enum gd_client_message kind;
    union {
        struct gd_hello hello;
        struct gd_open_run *open_run; // owned by the caller, gd_open_run_free()
        struct gd_attach attach;
        struct gd_submission *submission; // owned by the caller, gd_submission_free()
        struct gd_status_request status_request;
    };
};

// Decodes a frame's message. `arena` comes and goes empty: nothing of the result is in it. A submission is taken from
// `pool`, which may be NULL. An OpenRun is complete once gd_open_run_read_table() has read the frame's payload.
__attribute__((warn_unused_result)) int gd_decode(const struct gd_frame *frame, struct gd_arena *arena,
                                                  struct gd_submission_pool *pool, struct gd_decoded *ret_decoded,
                                                  struct gd_error *ret_error);

// Reads the group table, OpenRun's payload. Returns 0, or a negative errno with *ret_error set; then the run is of no
// use.
__attribute__((warn_unused_result)) int gd_open_run_read_table(struct gd_open_run *open_run, const uint8_t *table,
                                                               size_t bytes, struct gd_error *ret_error);
