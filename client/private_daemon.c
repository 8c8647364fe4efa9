// Starting a daemon for one run alone. The trainer must not notice: no signal, no child its wait() could find, none of
// its descriptors or signal handlers in the daemon, and no time but what an exec takes, however large the trainer is.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

enum {
    DAEMON_FD = 3,          // the daemon's end of the connection, as it sees it
    STACK_BYTES = 64 << 10, // a few system calls
    PROGRAM_BYTES_MAX = 4096,
};

struct starter {
    const char *program;
    int fd;
    uint8_t *daemon_stack; // its upper end
    int error;             // errno of what failed before the exec
};

static const char *given_program(const char *daemon_path) {
    const char *given = getenv("GRADIENTD_DAEMON");
    if (daemon_path)
        return daemon_path;
    if (given && *given)
        return given;
    return access(GD_INSTALLED_DAEMON, X_OK) == 0 ? GD_INSTALLED_DAEMON : "gradientd";
}

// Looks a name without a slash up in $PATH. Returns 0 or a negative errno.
static int find_program(const char *name, char ret_path[static PROGRAM_BYTES_MAX]) {
    if (strchr(name, '/'))
        return snprintf(ret_path, PROGRAM_BYTES_MAX, "%s", name) < PROGRAM_BYTES_MAX ? 0 : -ENAMETOOLONG;
    const char *directories = getenv("PATH");
    while (directories && *directories) {
        size_t bytes = strcspn(directories, ":");
        int length = snprintf(ret_path, PROGRAM_BYTES_MAX, "%.*s/%s", (int)bytes, directories, name);
        if (length < PROGRAM_BYTES_MAX && access(ret_path, X_OK) == 0)
            return 0;
        directories += bytes + (directories[bytes] == ':');
    }
    return -ENOENT;
}

static int take_descriptors(int fd) {
    int null = open("/dev/null", O_RDWR);
    if (null < 0)
        return -1;
    for (int standard = 0; standard < DAEMON_FD; standard++)
        if (dup2(null, standard) < 0)
            return -1;
    if (dup2(fd, DAEMON_FD) < 0)
        return -1;
    return close_range(DAEMON_FD + 1, ~0U, 0);
}

// In the grandchild. Signals are blocked until no handler of the trainer's is left.
static int become_daemon(void *context) {
    struct starter *starter = context;
    char name[] = "gradientd", option[] = "--connection-fd", number[] = "3";
    char *arguments[] = {name, option, number, NULL};
    sigset_t none;

    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        signal(signal_number, SIG_DFL);
    sigemptyset(&none);
    setsid();
    if (take_descriptors(starter->fd) == 0 && sigprocmask(SIG_SETMASK, &none, NULL) == 0)
        execve(starter->program, arguments, environ);
    starter->error = errno;
    return EXIT_FAILURE;
}

// In the child: ends once the daemon is on its way, which makes that an orphan.
static int start(void *context) {
    struct starter *starter = context;
    if (clone(become_daemon, starter->daemon_stack, CLONE_VM | CLONE_VFORK, starter) < 0)
        starter->error = errno;
    return EXIT_SUCCESS;
}

// Runs the program with `fd` as its connection. Child and grandchild run on stacks of their own in the trainer's memory
// while the calling thread stands still: nothing is copied. A child without an exit signal raises no SIGCHLD and is
// found by no wait() that does not ask for it; an exec would change that, so it ends without one. Returns 0 or a
// negative errno.
static int spawn(const char *program, int fd) {
    sigset_t all, before;
    uint8_t *stacks =
        mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stacks == MAP_FAILED)
        return -errno;
    struct starter starter = {.program = program, .fd = fd, .daemon_stack = stacks + 2 * STACK_BYTES};

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(start, stacks + STACK_BYTES, CLONE_VM | CLONE_VFORK, &starter);
    if (pid < 0)
        starter.error = errno;
    else
        waitpid(pid, NULL, (int)__WCLONE);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(stacks, 2 * STACK_BYTES);
    return -starter.error;
}

int client_start_daemon(const char *daemon_path, struct gradientd_error *ret_error) {
    const char *name = given_program(daemon_path);
    char program[PROGRAM_BYTES_MAX];
    int ends[2] = {-1, -1};

    int result = find_program(name, program);
    if (result == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        result = -errno;
    if (result < 0)
        goto fail;
    // dup2 onto itself would keep FD_CLOEXEC, so the daemon's end must not be its number already
    int daemon_end = fcntl(ends[1], F_DUPFD_CLOEXEC, DAEMON_FD + 1);
    result = daemon_end < 0 ? -errno : 0;
    close(ends[1]);
    int own_end = client_lift_descriptor(ends[0]);
    if (result == 0)
        result = own_end < 0 ? -errno : spawn(program, daemon_end);
    if (daemon_end >= 0)
        close(daemon_end);
    if (result == 0)
        return own_end;
    if (own_end >= 0)
        close(own_end);

fail:
    return client_fail(ret_error, -result, "no daemon answers, and starting %s failed: %s", name, strerror(-result));
}
