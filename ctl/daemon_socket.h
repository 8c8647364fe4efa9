// Where a daemon is: as every client finds it (client/connect.c).
#pragma once

#include <stddef.h>

enum {
    GD_SOCKET_ATTEMPTS_MAX = 2,
    GD_SOCKET_PATH_BYTES = 512, // of a path that is shown; one that can be connected to has 107
};

struct gd_socket_attempt {
    char path[GD_SOCKET_PATH_BYTES];
    const char *origin; // what says so: "--socket", "$GRADIENTD_SOCKET", "$XDG_RUNTIME_DIR" or "by default"; static
    int error;          // a negative errno, 0: connected
};

// The places that were tried, in this order; the last one is connected unless it has an error.
struct gd_socket_search {
    struct gd_socket_attempt attempts[GD_SOCKET_ATTEMPTS_MAX];
    size_t n;
};

// Connects to `path`, or where it is NULL to the first place by default that answers: $GRADIENTD_SOCKET alone, else
// $XDG_RUNTIME_DIR/gradientd/socket and /run/gradientd/socket. Waits at most `timeout_ms` at each for a place in the
// daemon's queue. Returns a descriptor, the caller's, or the last attempt's negative errno.
__attribute__((warn_unused_result)) int gd_daemon_socket_connect(const char *path, int timeout_ms,
                                                                 struct gd_socket_search *ret_search);

// What a negative errno of an attempt means, in a few words; static.
const char *gd_daemon_socket_reason(int error);
