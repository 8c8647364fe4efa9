#include "daemon_process.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"

enum { ARGUMENTS_MAX = 24 };

// Generous: a sanitizer's daemon on a loaded machine. A test that passes never waits this long.
static const double START_SECONDS = 20.0, STOP_SECONDS = 20.0;

const char *daemon_process_program(void) {
    const char *program = getenv("GRADIENTD_TEST_DAEMON");
    cr_assert(program, "GRADIENTD_TEST_DAEMON must name the daemon's program");
    return program;
}

static _Noreturn void become_daemon(const char *program, const struct daemon_process *daemon,
                                    const char *const *arguments, void (*prepare)(void)) {
    char *argv[ARGUMENTS_MAX + 2] = {strdup(program)};
    for (size_t i = 0; i < ARGUMENTS_MAX && arguments[i]; i++)
        argv[i + 1] = strdup(arguments[i]);
    prctl(PR_SET_PDEATHSIG, SIGKILL); // a test that crashed leaves nothing behind
    int log = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log >= 0)
        dup2(log, STDERR_FILENO);
    if (prepare)
        prepare();
    execv(program, argv);
    _exit(127);
}

// Takes connections, as its log says (a connection of ours would show among its descriptors), or has ended.
static bool is_up_or_gone(const void *context) {
    const struct daemon_process *daemon = context;
    if (access(daemon->log, R_OK) == 0) {
        struct scratch_bytes log = scratch_read(daemon->log);
        bool up = memmem(log.data, log.bytes, "listening at", 12) != NULL;
        free(log.data);
        if (up)
            return true;
    }
    return scratch_wait_readable(daemon->pidfd, 0.0);
}

void daemon_process_launch(struct daemon_process *daemon, const char *directory, const char *const *arguments,
                           void (*prepare)(void)) {
    const char *program = daemon_process_program();
    snprintf(daemon->socket, sizeof(daemon->socket), "%s/socket", directory);
    snprintf(daemon->log, sizeof(daemon->log), "%s/daemon.log", directory);
    snprintf(daemon->state, sizeof(daemon->state), "%s/state", directory);
    unlink(daemon->log); // old lines would count as this one's
    daemon->pid = fork();
    cr_assert(daemon->pid >= 0);
    if (daemon->pid == 0)
        become_daemon(program, daemon, arguments, prepare);
    daemon->pidfd = (int)syscall(SYS_pidfd_open, daemon->pid, 0);
    cr_assert(daemon->pidfd >= 0, "pidfd_open: %s", strerror(errno));
}

bool daemon_process_comes_up(struct daemon_process *daemon) {
    cr_assert(scratch_wait_until(is_up_or_gone, daemon, START_SECONDS), "the daemon neither listens nor ends");
    return !scratch_wait_readable(daemon->pidfd, 0.0);
}

void daemon_process_start(struct daemon_process *daemon, const char *directory) {
    char socket[DAEMON_PATH_BYTES], state[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    snprintf(state, sizeof(state), "%s/state", directory);
    const char *const arguments[] = {"--socket", socket, "--workers", "2", "--state-directory", state, NULL};
    daemon_process_launch(daemon, directory, arguments, NULL);
    cr_assert(daemon_process_comes_up(daemon), "the daemon did not start");
}

// Waits for its end; its wait status.
int daemon_process_wait_end(struct daemon_process *daemon) {
    int status;
    cr_assert(scratch_wait_readable(daemon->pidfd, STOP_SECONDS), "the daemon does not end");
    cr_assert(waitpid(daemon->pid, &status, 0) == daemon->pid);
    close(daemon->pidfd);
    daemon->pid = 0;
    return status;
}

static void print_log(const struct daemon_process *daemon) {
    struct scratch_bytes log = scratch_read(daemon->log);
    fprintf(stderr, "%.*s", (int)log.bytes, (char *)log.data);
    free(log.data);
}

void daemon_process_stop(struct daemon_process *daemon) {
    kill(daemon->pid, SIGTERM);
    int status = daemon_process_wait_end(daemon);
    bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!clean)
        print_log(daemon);
    cr_assert(clean, "the daemon's wait status is 0x%x", (unsigned)status);
}

void daemon_process_kill(struct daemon_process *daemon) {
    kill(daemon->pid, SIGKILL);
    daemon_process_wait_end(daemon);
}

void daemon_process_freeze(const struct daemon_process *daemon) {
    int status;
    kill(daemon->pid, SIGSTOP);
    cr_assert(waitpid(daemon->pid, &status, WUNTRACED) == daemon->pid && WIFSTOPPED(status));
}

void daemon_process_thaw(const struct daemon_process *daemon) {
    kill(daemon->pid, SIGCONT);
}

struct fd_count {
    pid_t pid;
    size_t expected;
};

static bool has_fds(const void *context) {
    const struct fd_count *count = context;
    return scratch_count_fds(count->pid) == count->expected;
}

void daemon_process_expect_fds(const struct daemon_process *daemon, size_t expected) {
    struct fd_count count = {daemon->pid, expected};
    cr_assert(scratch_wait_until(has_fds, &count, STOP_SECONDS), "the daemon has %zu descriptors, %zu before",
              scratch_count_fds(daemon->pid), expected);
}
