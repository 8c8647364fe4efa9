// One direction of a connection that is passed on: frames and descriptors, read from one socket and written to another.
// A frame is shown before it goes on, and only whole; what follows it as payload goes on in pieces as it comes. What
// breaks the frame protocol goes on unseen: the other end will say what it thinks of it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "gradientd/protocol.h"

struct gd_flow;

struct gd_flow_handlers {
    // One message, before it goes on. The handler may shorten it and take descriptors.
    void (*message)(void *context, struct gd_flow *flow, struct gd_frame *frame);
    // A piece of what follows a message that has a payload.
    void (*payload)(void *context, const uint8_t *data, size_t bytes);
};

enum gd_flow_state {
    GD_FLOW_OPEN,
    GD_FLOW_DRAINING, // `left_bytes` more are read
    GD_FLOW_ENDED,    // nothing more is read
};

struct gd_flow {
    int from, to; // sockets, borrowed
    enum gd_flow_state state;
    bool broken; // the other end takes nothing any more: what comes is dropped
    bool opaque; // what comes is no frame
    const struct gd_flow_handlers *handlers;
    void *context;
    uint8_t *data; // owned: what has come and not gone on
    size_t bytes;
    size_t ready;          // of those, what has been shown
    uint64_t payload_left; // of the frame that was shown last
    uint64_t left_bytes;

    int fds[GRADIENTD_FDS_MAX]; // owned: received, and not gone on
    size_t n_fds;
    bool fds_go;   // they go on ...
    size_t fds_at; // ... with the byte here
};

// `handlers` must outlive it. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_flow_init(struct gd_flow *flow, int from, int to,
                                                     const struct gd_flow_handlers *handlers, void *context);
void gd_flow_deinit(struct gd_flow *flow);

// Whether it waits for bytes, or for room on the other end.
bool gd_flow_wants_read(const struct gd_flow *flow);
bool gd_flow_wants_write(const struct gd_flow *flow);

// Moves what can be moved without waiting.
void gd_flow_read(struct gd_flow *flow);
void gd_flow_write(struct gd_flow *flow);

// Takes what has arrived by now, and then no more.
void gd_flow_drain(struct gd_flow *flow);

// From a handler, of the message it was called for: puts another, not longer, in its place.
void gd_flow_shorten(struct gd_flow *flow, struct gd_frame *frame, const uint8_t *message, uint32_t bytes);

// Takes the descriptor at `index` out of those that are to go on; it is the caller's then.
int gd_flow_steal_fd(struct gd_flow *flow, size_t index);
