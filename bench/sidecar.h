// A daemon and the trainers it serves, for the parts of the benchmark that need the real thing.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench.h"
#include "gradientd/client.h"

enum { BENCH_PATH_BYTES = 108 };

struct bench_daemon {
    pid_t pid;
    char directory[BENCH_PATH_BYTES]; // temporary, with the socket and the event files
    char socket[BENCH_PATH_BYTES];
};

// Starts settings->daemon and waits until it listens; exits with a message where it does not.
void bench_daemon_start(struct bench_daemon *daemon, const struct bench_settings *settings);
void bench_daemon_stop(struct bench_daemon *daemon);

// SIGKILL, and waits for its end. Then another one may be started at the same place, which is waited for as well.
void bench_daemon_kill(struct bench_daemon *daemon);
void bench_daemon_restart(struct bench_daemon *daemon, const struct bench_settings *settings);

// SIGSTOP, and waits until it has stopped; SIGCONT.
void bench_daemon_freeze(const struct bench_daemon *daemon);
void bench_daemon_thaw(const struct bench_daemon *daemon);

// CPU seconds that process has taken, all threads.
double bench_cpu_seconds(pid_t pid);

// KiB of memory that is its own and resident.
double bench_private_kib(pid_t pid);

// Waits until the daemon has nothing to do.
void bench_daemon_wait_idle(const struct bench_daemon *daemon);

// A model: groups of about equal size, one parameter group, adam.
struct bench_model {
    uint64_t elements;
    uint32_t n_groups;
    struct gradientd_group *groups;
    char (*names)[24];
    const void **gradients; // pointers into one buffer, group after group
    uint8_t *buffer;
    uint64_t buffer_bytes;
};

void bench_model_init(struct bench_model *model, uint64_t elements, uint32_t n_groups, size_t element_bytes);
void bench_model_deinit(struct bench_model *model);

// Options of a run of that model on that daemon, to be changed before bench_open().
struct gradientd_options bench_options(const struct bench_model *model, const struct bench_daemon *daemon,
                                       const char *run);

// Exits with a message where it fails.
struct gradientd_run *bench_open(const struct gradientd_options *options);

// Submits the model's gradients as step `step`, which must not be skipped.
void bench_submit(struct gradientd_run *run, const struct bench_model *model, int64_t step);

// Closes the run, whose event file must be whole then.
void bench_close(struct gradientd_run *run);
