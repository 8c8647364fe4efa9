#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTEN_BACKLOG = 128 };

static const char LOCK_SUFFIX[] = ".lock";

static int fail(struct gd_error *ret_error, const char *path, int number) {
    return gd_error_set(ret_error, GD_ERROR_INTERNAL, "socket", "cannot listen at %s: %s", path, strerror(number));
}

// The lock file stays when the daemon goes: removing it would let two daemons hold locks of two files.
static int take_lock(struct gd_listener *listener, struct gd_error *ret_error) {
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) + sizeof(LOCK_SUFFIX)];
    snprintf(path, sizeof(path), "%s%s", listener->path, LOCK_SUFFIX);

    listener->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (listener->lock < 0)
        return fail(ret_error, path, errno);
    if (flock(listener->lock, LOCK_EX | LOCK_NB) < 0)
        return gd_error_set(ret_error, GD_ERROR_OWNED, "socket", "another gradientd serves %s (it holds %s)",
                            listener->path, path);
    return 0;
}

// Whether what lies at `address` is a socket that nobody listens at. Anything else, a file by mistake among it, stays.
static bool is_stale(const struct sockaddr_un *address) {
    struct stat status;
    if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool refused = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_socket(struct gd_listener *listener, struct gd_error *ret_error) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, listener->path); // its length was checked

    int result = bind(listener->fd, (struct sockaddr *)&address, sizeof(address));
    if (result < 0 && errno == EADDRINUSE) {
        if (!is_stale(&address))
            return gd_error_set(ret_error, GD_ERROR_OWNED, "socket", "%s is served by another program, or is no socket",
                                listener->path);
        unlink(listener->path);
        result = bind(listener->fd, (struct sockaddr *)&address, sizeof(address));
    }
    if (result < 0 || listen(listener->fd, LISTEN_BACKLOG) < 0)
        return fail(ret_error, listener->path, errno);
    return 0;
}

int gd_listener_init(struct gd_listener *listener, const char *path, struct gd_error *ret_error) {
    *listener = (struct gd_listener){.fd = -1, .lock = -1, .path = path};
    if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
        return fail(ret_error, path, ENAMETOOLONG);
    int result = take_lock(listener, ret_error);
    if (result == 0) {
        listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        result = listener->fd < 0 ? fail(ret_error, path, errno) : bind_socket(listener, ret_error);
    }
    if (result < 0) {
        if (listener->fd >= 0)
            close(listener->fd); // the path is somebody else's: it stays
        listener->fd = -1;
        gd_listener_deinit(listener);
    }
    return result;
}

void gd_listener_deinit(struct gd_listener *listener) {
    if (listener->fd >= 0) {
        unlink(listener->path);
        close(listener->fd);
    }
    if (listener->lock >= 0)
        close(listener->lock);
    *listener = (struct gd_listener){.fd = -1, .lock = -1};
}
