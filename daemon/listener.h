// The daemon's socket in the file system, and the lock that says whose it is.
#pragma once

#include "error.h"

struct gd_listener {
    int fd;           // listening, -1: none
    int lock;         // of PATH.lock, held while it listens
    const char *path; // borrowed
};

// Listens at `path`. A socket file that is there already is replaced only if nobody answers on it; that is decided
// under the lock, so of two daemons that start at once one wins. Returns 0, or a negative errno with *ret_error set.
__attribute__((warn_unused_result)) int gd_listener_init(struct gd_listener *listener, const char *path,
                                                         struct gd_error *ret_error);

// Closes and removes the socket. Takes {-1, -1} too, and leaves it behind.
void gd_listener_deinit(struct gd_listener *listener);
