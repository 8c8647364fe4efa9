// A process that keeps a daemon and, when told, kills it and starts it again, as a service manager does: the trainer's
// own process must not fork while its steps are timed.
#pragma once

#include "sidecar.h"

struct bench_keeper {
    pid_t pid;
    int socket;
};

// Starts the process, and it the daemon; returns when that listens.
void bench_keeper_start(struct bench_keeper *keeper, const struct bench_settings *settings,
                        struct bench_daemon *ret_daemon);

// SIGKILL for the daemon, and a new one at the same socket. Does not wait for either.
void bench_keeper_restart(const struct bench_keeper *keeper);

// Stops the daemon, removes its directory and ends the process.
void bench_keeper_stop(struct bench_keeper *keeper);
