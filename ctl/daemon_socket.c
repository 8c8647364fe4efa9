#include "daemon_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MS_PER_SECOND = 1000, US_PER_MS = 1000 };

static int connect_socket(int fd, const struct sockaddr_un *address, int timeout_ms) {
    // connect() waits so long where the queue is full: a daemon that is stopped takes nobody from it
    struct timeval patience = {timeout_ms / MS_PER_SECOND, timeout_ms % MS_PER_SECOND * US_PER_MS};
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return -errno;
    int result;
    do
        result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

static int connect_to(const char *path, int timeout_ms) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int result = connect_socket(fd, &address, timeout_ms);
    if (result == 0)
        return fd;
    close(fd);
    return result;
}

// Tries one place more.
static int try(struct gd_socket_search *search, const char *origin, const char *path, int timeout_ms) {
    struct gd_socket_attempt *attempt = &search->attempts[search->n++];
    int fd = connect_to(path, timeout_ms);
    snprintf(attempt->path, sizeof(attempt->path), "%s", path);
    attempt->origin = origin;
    attempt->error = fd < 0 ? fd : 0;
    return fd;
}

int gd_daemon_socket_connect(const char *path, int timeout_ms, struct gd_socket_search *ret_search) {
    const char *given = getenv("GRADIENTD_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    char below_runtime[GD_SOCKET_PATH_BYTES];

    *ret_search = (struct gd_socket_search){0};
    if (path)
        return try(ret_search, "--socket", path, timeout_ms);
    if (given && *given)
        return try(ret_search, "$GRADIENTD_SOCKET", given, timeout_ms);
    if (runtime &&
        snprintf(below_runtime, sizeof(below_runtime), "%s/gradientd/socket", runtime) < (int)sizeof(below_runtime)) {
        int fd = try(ret_search, "$XDG_RUNTIME_DIR", below_runtime, timeout_ms);
        if (fd >= 0)
            return fd;
    }
    return try(ret_search, "by default", "/run/gradientd/socket", timeout_ms);
}

const char *gd_daemon_socket_reason(int error) {
    switch (-error) {
    case ENOENT:
        return "there is no such file";
    case EACCES:
    case EPERM:
        return "its rights, or those of a directory above it, do not let this user in";
    case ECONNREFUSED:
        return "nobody listens there: the daemon that made it is gone, or it is no socket";
    case EAGAIN:
        return "its queue is full: the daemon is stopped or hangs";
    case ENAMETOOLONG:
        return "a socket's path has at most 107 bytes";
    default:
        return strerror(-error);
    }
}
