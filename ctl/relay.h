// One trainer's connection, passed on to the daemon, and recorded on its way.
//
// All goes on as it came, but for the trainer's pidfd: by that the daemon would see the trainer's death while some of
// what it said is still here, and drop it. The relay watches the pidfd itself, passes on what had come by then, and
// ends the connection, which tells the daemon the same.
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "flow.h"
#include "recorder.h"

enum { GD_RELAY_POLLS = 3 };

struct gd_relay {
    struct gd_relay *next;        // of its owner
    struct gd_recorder *recorder; // borrowed, as is ...
    struct gd_arena *arena;       // ... what messages are unpacked in
    int trainer, daemon, pidfd;   // owned; pidfd -1: none
    struct gd_flow up, down;
    uint64_t now_ms; // of the turn under way

    // the frame under way whose payload is to come
    struct gd_submission *submission; // owned
    bool opens;
    uint8_t *message; // owned, as is the payload
    size_t message_bytes;
    uint8_t *payload;
    size_t payload_bytes, payload_capacity;
    uint64_t payload_left;

    struct gd_opening opening;
    struct gd_memory_view memory;
    struct gd_run_recording *recording; // borrowed, NULL: not attached
    uint64_t released_sequence;
    bool spoilt; // a message that is none
    bool refused;
    char error[GD_ERROR_TEXT_BYTES]; // of a refusal
    bool trainer_done;               // it has ended, and all it said has gone on ...
    uint64_t done_ms;                // ... then
};

// Takes over both sockets. Returns NULL when there is no memory; then they are closed.
struct gd_relay *gd_relay_new_consume(int trainer, int daemon, struct gd_recorder *recorder, struct gd_arena *arena);

// Says what it waits for.
void gd_relay_poll(const struct gd_relay *relay, struct pollfd ret_polls[GD_RELAY_POLLS]);

// Does what poll() has found. Returns false when the connection is over: only gd_relay_free() may follow.
__attribute__((warn_unused_result)) bool gd_relay_advance(struct gd_relay *relay,
                                                          const struct pollfd polls[GD_RELAY_POLLS], uint64_t now_ms);

// Whether it is over because the daemon went away.
bool gd_relay_lost_daemon(const struct gd_relay *relay);

// Nothing more is passed on, though the trainer may have more to say: its recording is not whole, unless it has ended.
void gd_relay_interrupt(struct gd_relay *relay);

// Ends its recording, unless the run may be gone on with.
void gd_relay_free(struct gd_relay *relay);

// ---- relay_messages.c

// What the relay's two flows hand over.
extern const struct gd_flow_handlers gd_relay_up_handlers, gd_relay_down_handlers;
