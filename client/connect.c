#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

enum { PRIVATE_DAEMON_FD = 3 };

// A connected descriptor or a negative errno.
static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

// In the daemon-to-be nothing of the trainer is open but its end of the socket.
static int prepare_descriptors(posix_spawn_file_actions_t *actions, int fd) {
    int result = posix_spawn_file_actions_adddup2(actions, fd, PRIVATE_DAEMON_FD);
    for (int standard = 0; standard < 3 && result == 0; standard++)
        result = posix_spawn_file_actions_addopen(actions, standard, "/dev/null", O_RDWR, 0);
    if (result == 0)
        result = posix_spawn_file_actions_addclosefrom_np(actions, PRIVATE_DAEMON_FD + 1);
    return result;
}

static int prepare_signals(posix_spawnattr_t *attributes) {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int result = posix_spawnattr_setsigmask(attributes, &none);
    if (result == 0)
        result = posix_spawnattr_setsigdefault(attributes, &all);
    if (result == 0)
        result = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return result;
}

// Waits until `deadline` for the process that puts the daemon on its way. Returns 0 or a negative errno.
static int wait_for_starter(pid_t pid, double deadline) {
    for (;;) {
        int status;
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended < 0 && errno != EINTR)
            return 0; // somebody's wait() was faster; the socket will tell whether the daemon lives
        if (ended == pid)
            return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ENOEXEC;
        if (client_now_monotonic() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -ETIMEDOUT;
        }
        usleep(500);
    }
}

// Runs `program` with `fd` as its connection. The process started here puts the daemon beyond the trainer's process
// tree and ends, so it can be waited for at once. Returns 0 or a negative errno.
static int spawn(const char *program, int fd, double deadline) {
    char name[] = "gradientd", option[] = "--connection-fd", number[] = "3";
    char *arguments[] = {name, option, number, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    int result = prepare_descriptors(&actions, fd);
    if (result == 0)
        result = prepare_signals(&attributes);
    if (result == 0)
        result = posix_spawnp(&pid, program, &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (result != 0)
        return -result;
    return wait_for_starter(pid, deadline);
}

static const char *daemon_program(const struct gradientd_options *options) {
    const char *given = getenv("GRADIENTD_DAEMON");
    if (options->daemon_path)
        return options->daemon_path;
    if (given && *given)
        return given;
    return access(GD_INSTALLED_DAEMON, X_OK) == 0 ? GD_INSTALLED_DAEMON : "gradientd";
}

static int start_private_daemon(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return client_fail(ret_error, errno, "socketpair: %s", strerror(errno));

    // dup2 onto itself would keep FD_CLOEXEC, so the daemon's end must not be its number already
    int daemon_end = fcntl(ends[1], F_DUPFD_CLOEXEC, PRIVATE_DAEMON_FD + 1);
    close(ends[1]);
    int result = daemon_end < 0
                     ? -errno
                     : spawn(daemon_program(options), daemon_end, client_now_monotonic() + options->connect_timeout);
    if (daemon_end >= 0)
        close(daemon_end);
    if (result < 0) {
        close(ends[0]);
        return client_fail(ret_error, -result, "no daemon answers, and starting %s failed: %s", daemon_program(options),
                           strerror(-result));
    }
    return ends[0];
}

int client_connect(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    int fd = options->socket ? connect_to(options->socket) : connect_by_default();
    if (fd >= 0)
        return fd;
    if (options->socket || !options->private_daemon)
        return client_fail(ret_error, -fd, "no daemon answers at %s: %s",
                           options->socket ? options->socket
                                           : "$GRADIENTD_SOCKET, $XDG_RUNTIME_DIR/gradientd/socket "
                                             "or /run/gradientd/socket",
                           strerror(-fd));
    return start_private_daemon(options, ret_error);
}
