// The daemon's socket in the file system, and the lock that says whose it is.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include "error.h"

// Who may connect to a socket that the daemon creates.
struct gd_socket_rights {
    int mode;    // of its file, -1: what the umask leaves of 0777
    gid_t group; // of its file, (gid_t)-1: the daemon's
};

struct gd_listener {
    int fd;   // listening, -1: none
    int lock; // of PATH.lock, held while it listens; -1: the socket is systemd's, and so is its file
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
};

// Listens at `path`; where it is NULL, on the socket that systemd passed, or else at the default path, whose directory
// is created if need be: $GRADIENTD_SOCKET, else /run/gradientd/socket for root, $XDG_RUNTIME_DIR/gradientd/socket for
// others. A socket file that is there already is replaced only if nobody answers on it; that is decided under the lock,
// so of two daemons that start at once one wins. The rights of a socket that systemd passed are systemd's to give.
// Returns 0, or a negative errno with *ret_error set.
__attribute__((warn_unused_result)) int gd_listener_init(struct gd_listener *listener, const char *path,
                                                         const struct gd_socket_rights *rights,
                                                         struct gd_error *ret_error);

// Closes and, where it is not systemd's, removes the socket. Takes {-1, -1} too, and leaves it behind.
void gd_listener_deinit(struct gd_listener *listener);
