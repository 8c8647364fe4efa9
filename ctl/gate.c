#include "gate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 64 };

static int set_address(struct sockaddr_un *address, const char *path) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path))
        return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    return 0;
}

static int bind_socket(struct gd_gate *gate) {
    gate->open = false;
    gate->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (gate->fd < 0)
        return -errno;
    return bind(gate->fd, (struct sockaddr *)&gate->address, sizeof(gate->address)) < 0 ? -errno : 0;
}

// Makes a directory that is ours alone below `parent`.
static int make_directory(struct gd_gate *gate, const char *parent) {
    char path[sizeof(gate->directory) + sizeof("/socket")];
    int n = snprintf(gate->directory, sizeof(gate->directory), "%s/gradientctl-XXXXXX", parent);
    snprintf(path, sizeof(path), "%s/socket", gate->directory);
    if (n < 0 || (size_t)n >= sizeof(gate->directory) || set_address(&gate->address, path) < 0)
        return -ENAMETOOLONG;
    if (!mkdtemp(gate->directory))
        return -errno;
    snprintf(path, sizeof(path), "%s/socket", gate->directory);
    return set_address(&gate->address, path);
}

int gd_gate_init(struct gd_gate *gate, const char *daemon_path) {
    const char *temporary = getenv("TMPDIR");
    *gate = (struct gd_gate){.fd = -1};
    int result = set_address(&gate->daemon, daemon_path);
    if (result < 0)
        return result;
    result = make_directory(gate, temporary && *temporary ? temporary : "/tmp");
    if (result == -ENAMETOOLONG) // a socket's path has 107 bytes
        result = make_directory(gate, "/tmp");
    if (result < 0)
        return result;
    result = bind_socket(gate);
    if (result < 0)
        gd_gate_deinit(gate);
    return result;
}

void gd_gate_deinit(struct gd_gate *gate) {
    if (gate->fd >= 0)
        close(gate->fd);
    unlink(gate->address.sun_path);
    rmdir(gate->directory);
    gate->fd = -1;
    gate->open = false;
}

// A connected descriptor or a negative errno.
static int connect_to_daemon(const struct gd_gate *gate) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&gate->daemon, sizeof(gate->daemon)) == 0)
        return fd;
    int result = -errno;
    close(fd);
    return result;
}

// A socket that listens cannot be made to refuse: another one takes its place.
static void shut(struct gd_gate *gate) {
    close(gate->fd);
    unlink(gate->address.sun_path);
    if (bind_socket(gate) < 0 && gate->fd >= 0) {
        close(gate->fd);
        gate->fd = -1;
    }
}

// Of descriptors, memory, or room in the daemon's backlog, which others hold and will give back.
static bool is_shortage(int result) {
    return result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS || result == -EAGAIN;
}

void gd_gate_look(struct gd_gate *gate) {
    if (gate->fd < 0)
        return;
    int fd = connect_to_daemon(gate);
    bool answers = fd >= 0 || fd == -EAGAIN; // a full backlog is somebody's
    if (fd >= 0)
        close(fd);
    if (answers && !gate->open)
        gate->open = listen(gate->fd, BACKLOG) == 0;
    if (!answers && !is_shortage(fd) && gate->open)
        shut(gate);
}

// The daemon comes first: a trainer whose turn cannot be now stays where it waits.
bool gd_gate_accept(struct gd_gate *gate, int *ret_trainer, int *ret_daemon) {
    int daemon = connect_to_daemon(gate);
    if (daemon < 0) {
        gate->pausing = is_shortage(daemon);
        if (!gate->pausing)
            shut(gate);
        return false;
    }
    int trainer = accept4(gate->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (trainer < 0) {
        gate->pausing = true;
        close(daemon);
        return false;
    }
    *ret_trainer = trainer;
    *ret_daemon = daemon;
    return true;
}
