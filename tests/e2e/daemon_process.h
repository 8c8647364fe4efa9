// The real daemon as a child process of a test. $GRADIENTD_TEST_DAEMON names its program.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { DAEMON_PATH_BYTES = 128 };

struct daemon_process {
    pid_t pid;
    int pidfd;
    char socket[DAEMON_PATH_BYTES];
    char log[DAEMON_PATH_BYTES];   // what it says on stderr; a new one at each start
    char state[DAEMON_PATH_BYTES]; // its state directory, which it creates when it needs it
};

// The daemon's program.
const char *daemon_process_program(void);

// Starts a daemon with `arguments` (without the program's name, ended by NULL) and does not wait. `prepare`, which may
// be NULL, is called in its process first. Its socket is taken to be `directory`/socket. It dies with the test.
void daemon_process_launch(struct daemon_process *daemon, const char *directory, const char *const *arguments,
                           void (*prepare)(void));

// Waits until a launched daemon takes connections (true) or has ended (false).
bool daemon_process_comes_up(struct daemon_process *daemon);

// Waits for its end; its wait status.
int daemon_process_wait_end(struct daemon_process *daemon);

// Starts a daemon that listens in `directory` and waits until it takes connections. It dies with the test.
void daemon_process_start(struct daemon_process *daemon, const char *directory);

// SIGTERM; fails the test unless the daemon ends soon and with status 0 (a sanitizer's finding is another status).
void daemon_process_stop(struct daemon_process *daemon);

// Fails the test unless the daemon soon has that many descriptors open.
void daemon_process_expect_fds(const struct daemon_process *daemon, size_t expected);

// SIGKILL, and waits for its end.
void daemon_process_kill(struct daemon_process *daemon);

// SIGSTOP, and waits until it has stopped; SIGCONT.
void daemon_process_freeze(const struct daemon_process *daemon);
void daemon_process_thaw(const struct daemon_process *daemon);
