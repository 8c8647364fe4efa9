#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "internal.h"

// A connected descriptor or a negative errno.
static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);

    int fd = client_lift_descriptor(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    return fd;
}

// Tries the places a daemon listens at by default.
static int connect_by_default(void) {
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[512];

    const char *given = getenv("GRADIENTD_SOCKET");
    if (given && *given)
        return connect_to(given);
    if (runtime && snprintf(path, sizeof(path), "%s/gradientd/socket", runtime) < (int)sizeof(path)) {
        int fd = connect_to(path);
        if (fd >= 0)
            return fd;
    }
    return connect_to("/run/gradientd/socket");
}

int client_connect(const char *path, bool private_daemon, const char *daemon_path, struct gradientd_error *ret_error) {
    int fd = path ? connect_to(path) : connect_by_default();
    if (fd >= 0)
        return fd;
    if (path || !private_daemon)
        return client_fail(ret_error, -fd, "no daemon answers at %s: %s",
                           path ? path
                                : "$GRADIENTD_SOCKET, $XDG_RUNTIME_DIR/gradientd/socket "
                                  "or /run/gradientd/socket",
                           strerror(-fd));
    return client_start_daemon(daemon_path, ret_error);
}
