// A client's socket: bytes and descriptors in, messages and payloads out to handlers, messages back. Runs on the loop
// thread.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "frame.h"
#include "gradientd.pb-c.h"
#include "quota.h"

struct gd_connection;

struct gd_connection_handlers {
    // One message, which is gone when the call returns. The handler may send, pause and close. Where
    // frame->payload_bytes is not 0, `payload` is called next with what follows the message, in pieces as they come.
    void (*message)(void *context, const struct gd_frame *frame);
    void (*payload)(void *context, const uint8_t *data, size_t bytes);
    // Descriptors may be about to come, as many as a message can bring: charges for them. Returns 0, or a negative
    // errno with *ret_error set; then they are not received.
    int (*charge_fds)(void *context, struct gd_charge *charge, struct gd_error *ret_error);
    // After gd_connection_ask_room(): the peer leaves little unread, so there is room for more.
    void (*room)(void *context);
    // After gd_connection_drain(): all that had arrived by then is handled; nothing more will be read.
    void (*drained)(void *context);
    // The peer broke the frame protocol; the handler will want to say so and close.
    void (*broken)(void *context, const struct gd_error *error);
    // The peer is gone or gd_connection_close() was called: the last call; the connection frees itself.
    void (*closed)(void *context);
};

// Takes over `fd` (a connected Unix stream socket) on success. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_connection_new_consume(uv_loop_t *loop, int fd,
                                                                  const struct gd_connection_handlers *handlers,
                                                                  void *context, struct gd_connection **ret_connection);

// The credentials of a socket's peer as the kernel recorded them at connect; pid is 0 across pid namespaces.
struct ucred gd_connection_peer(int fd);

// Its socket, which stays the connection's.
int gd_connection_fd(const struct gd_connection *connection);

// The oldest received descriptor, now the caller's as is its part of the charge, in `charge`; -1 when there is none.
int gd_connection_steal_fd(struct gd_connection *connection, struct gd_charge *charge);

// Calls `room` once, as soon as there is room for a message and much more: what is sent only then leaves room for what
// must not be lost. That is when the kernel says that the socket can be written to, which it does while most of the
// buffer is free, and for a few messages after that; so `room` may be called before this returns, or when all that a
// wake-up has brought is handled, and what it sends may find the connection broken and close it.
void gd_connection_ask_room(struct gd_connection *connection);

// Queues a message; a peer that lets more than 1 MiB pile up is dropped. Does nothing while closing.
void gd_connection_send(struct gd_connection *connection, const Gradientd__DaemonMessage *message);

// Sends a message that may be lost, if nothing waits to be sent, most of the socket's buffer is free and there is
// memory for it. Returns whether it was sent.
bool gd_connection_offer(struct gd_connection *connection, const Gradientd__DaemonMessage *message);

// Whether to go on: a paused connection handles nothing and leaves bytes in the socket, which slows the sender down.
void gd_connection_set_paused(struct gd_connection *connection, bool paused);

// Handles all that has arrived by now, as far as it is not paused meanwhile, then calls `drained` and reads no more.
void gd_connection_drain(struct gd_connection *connection);

// Stops reading, sends what is queued as far as the socket takes it at once, and closes.
void gd_connection_close(struct gd_connection *connection);
