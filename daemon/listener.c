#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "systemd.h"

// As many as the kernel lets wait: all trainers of a parallel job connect at the same moment.
enum { LISTEN_BACKLOG = SOMAXCONN };

static const char LOCK_SUFFIX[] = ".lock";

static int fail(struct gd_error *ret_error, const char *path, int number) {
    return gd_error_set(ret_error, GD_ERROR_INTERNAL, "socket", "cannot listen at %s: %s", path, strerror(number));
}

// The lock file stays when the daemon goes: removing it would let two daemons hold locks of two files.
static int take_lock(struct gd_listener *listener, struct gd_error *ret_error) {
    char path[sizeof(listener->path) + sizeof(LOCK_SUFFIX)];
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

// Binds with the rights of `rights`: nobody can connect whom they do not let in, at no time.
static int bind_with_rights(int fd, const struct sockaddr_un *address, const struct gd_socket_rights *rights) {
    if (rights->mode < 0 && rights->group == (gid_t)-1)
        return bind(fd, (const struct sockaddr *)address, sizeof(*address));
    mode_t before = umask(0777);
    int result = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    umask(before);
    if (result < 0)
        return result;
    if (lchown(address->sun_path, (uid_t)-1, rights->group) == 0 &&
        chmod(address->sun_path, rights->mode < 0 ? 0660 : (mode_t)rights->mode) == 0)
        return 0;
    int number = errno;
    unlink(address->sun_path);
    errno = number;
    return -1;
}

static int bind_socket(struct gd_listener *listener, const struct gd_socket_rights *rights,
                       struct gd_error *ret_error) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, listener->path); // its length was checked

    int result = bind_with_rights(listener->fd, &address, rights);
    if (result < 0 && errno == EADDRINUSE) {
        if (!is_stale(&address))
            return gd_error_set(ret_error, GD_ERROR_OWNED, "socket", "%s is served by another program, or is no socket",
                                listener->path);
        unlink(listener->path);
        result = bind_with_rights(listener->fd, &address, rights);
    }
    if (result < 0 || listen(listener->fd, LISTEN_BACKLOG) < 0)
        return fail(ret_error, listener->path, errno);
    return 0;
}

static int listen_at(struct gd_listener *listener, const char *path, const struct gd_socket_rights *rights,
                     struct gd_error *ret_error) {
    if (strlen(path) >= sizeof(listener->path))
        return fail(ret_error, path, ENAMETOOLONG);
    strcpy(listener->path, path);
    int result = take_lock(listener, ret_error);
    if (result < 0)
        return result;
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return fail(ret_error, path, errno);
    result = bind_socket(listener, rights, ret_error);
    if (result < 0) {
        close(listener->fd); // the path is somebody else's: it stays
        listener->fd = -1;
    }
    return result;
}

// Says what the socket that systemd passed is, if it is not what it must be.
static int check_passed(int fd, struct gd_error *ret_error) {
    int domain, type, listens;
    socklen_t bytes = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) < 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "socket", "what systemd passed is no socket");
    if (domain != AF_UNIX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "socket",
                            "the socket systemd passed is of address family %d, it must be AF_UNIX (a path in "
                            "ListenStream=)",
                            domain);
    if (type != SOCK_STREAM)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "socket",
                            "the socket systemd passed is of type %d, it must be SOCK_STREAM (ListenStream=)", type);
    if (!listens)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "socket",
                            "the socket systemd passed does not listen (Accept= must be no)");
    return 0;
}

static int adopt_consume(struct gd_listener *listener, int fd, struct gd_error *ret_error) {
    struct sockaddr_un address = {0};
    socklen_t bytes = sizeof(address);
    int result = check_passed(fd, ret_error);
    if (result < 0) {
        close(fd);
        return result;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    listener->fd = fd;
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) == 0)
        memcpy(listener->path, address.sun_path, sizeof(listener->path) - 1); // "" for an abstract one
    return 0;
}

// $GRADIENTD_SOCKET, or a path whose directory is there afterwards.
static int listen_by_default(struct gd_listener *listener, const struct gd_socket_rights *rights,
                             struct gd_error *ret_error) {
    const char *given = getenv("GRADIENTD_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
    char path[sizeof(listener->path)];
    bool root = geteuid() == 0;

    if (given && *given)
        return listen_at(listener, given, rights, ret_error);
    if (!root && (!runtime || *runtime != '/'))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "socket",
                            "where to listen? XDG_RUNTIME_DIR is not set: give --socket PATH");
    int bytes = snprintf(path, sizeof(path), "%s/gradientd", root ? "/run" : runtime);
    if (bytes >= (int)sizeof(path))
        return fail(ret_error, runtime, ENAMETOOLONG);
    if (mkdir(path, root ? 0755 : 0700) < 0 && errno != EEXIST)
        return fail(ret_error, path, errno);
    if (snprintf(path + bytes, sizeof(path) - (size_t)bytes, "/socket") >= (int)sizeof(path) - bytes)
        return fail(ret_error, path, ENAMETOOLONG);
    return listen_at(listener, path, rights, ret_error);
}

int gd_listener_init(struct gd_listener *listener, const char *path, const struct gd_socket_rights *rights,
                     struct gd_error *ret_error) {
    int fd;
    *listener = (struct gd_listener){.fd = -1, .lock = -1};
    int result = gd_systemd_listen_fd(&fd, ret_error);
    if (result > 0 && path) {
        close(fd);
        result = gd_error_set(ret_error, GD_ERROR_INVALID, "socket",
                              "systemd passed a socket, and another is set, socket %s: only one can be served", path);
    } else if (result > 0 && (rights->mode >= 0 || rights->group != (gid_t)-1)) {
        close(fd);
        result = gd_error_set(ret_error, GD_ERROR_INVALID, "socket",
                              "systemd passed a socket: SocketMode= and SocketGroup= of its unit say who may connect, "
                              "instead of socket-mode and socket-group");
    } else if (result > 0)
        result = adopt_consume(listener, fd, ret_error);
    else if (result == 0)
        result = path ? listen_at(listener, path, rights, ret_error) : listen_by_default(listener, rights, ret_error);
    if (result < 0)
        gd_listener_deinit(listener);
    return result;
}

void gd_listener_deinit(struct gd_listener *listener) {
    if (listener->fd >= 0) {
        if (listener->lock >= 0)
            unlink(listener->path);
        close(listener->fd);
    }
    if (listener->lock >= 0)
        close(listener->lock);
    *listener = (struct gd_listener){.fd = -1, .lock = -1};
}
