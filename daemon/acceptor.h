// The listening socket on the loop: hands over each client that connects, and waits a while where there are no
// descriptors left for more.
#pragma once

#include <uv.h>

#include "listener.h"

struct gd_acceptor {
    struct gd_listener listener; // fd -1: does not listen
    uv_poll_t poll;
    uv_timer_t pause_timer;              // runs while descriptors are short
    void (*take)(void *context, int fd); // a client's socket, the callee's from then on
    void *context;
};

// The struct stays where it is until the loop has ended.
void gd_acceptor_init(struct gd_acceptor *acceptor, uv_loop_t *loop, void (*take)(void *context, int fd),
                      void *context);

// Listens as gd_listener_init() says. Returns 0, or a negative errno after logging why.
__attribute__((warn_unused_result)) int gd_acceptor_listen(struct gd_acceptor *acceptor, const char *path,
                                                           const struct gd_socket_rights *rights);

// Listens no more. May be called again.
void gd_acceptor_stop(struct gd_acceptor *acceptor);

// Of one that has been stopped.
void gd_acceptor_close(struct gd_acceptor *acceptor);
