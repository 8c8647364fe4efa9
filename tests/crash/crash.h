// Kills the daemon, and trainers, again and again, and looks at what is left. Everything is drawn from a seed.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "fault.h"
#include "gradientd/client.h"

enum { CRASH_PATH_BYTES = 512 };

// ---- what all need

// CLOCK_MONOTONIC seconds.
double crash_now(void);
void crash_pause_us(uint32_t microseconds);

// Prints a line on stderr and returns -1.
__attribute__((format(printf, 1, 2))) int crash_fail(const char *format, ...);

// ---- the daemon under test

struct crash_daemon {
    const char *program;
    char directory[CRASH_PATH_BYTES]; // of socket, log, page and event files
    bool keeps_directory;
    char socket[CRASH_PATH_BYTES];
    struct gd_fault_page *page; // shared with it
    pid_t pid;                  // 0: there is none
};

// In `directory`, which stays, or in one of its own where that is NULL. Returns 0 or -1.
int crash_daemon_init(struct crash_daemon *daemon, const char *program, const char *directory);

// Removes a directory of its own; the daemon must be gone.
void crash_daemon_deinit(struct crash_daemon *daemon);

// Starts it, with nothing counted in the page, and does not wait. Returns 0 or -1.
int crash_daemon_start(struct crash_daemon *daemon);

// Waits until it takes connections. Returns 0 or -1.
int crash_daemon_wait_up(const struct crash_daemon *daemon);

// Waits for its end; its wait status, or -1 where it does not come.
int crash_daemon_wait_end(struct crash_daemon *daemon);

// SIGKILL, and its end. Returns 0, or -1 where it had ended otherwise.
int crash_daemon_kill(struct crash_daemon *daemon);

// SIGTERM; returns 0, or -1 where its exit status is not 0: a sanitizer found something.
int crash_daemon_stop(struct crash_daemon *daemon);

// Prints its log on stderr.
void crash_daemon_print_log(const struct crash_daemon *daemon);

// ---- what a run submits: a function of its seed

enum { CRASH_GROUPS_MAX = 4 };

struct crash_stream {
    struct gradientd_group groups[CRASH_GROUPS_MAX];
    size_t n_groups;
    uint64_t elements;
    struct gradientd_parameter_group rates;
    enum gradientd_rule rule, shadow;
    bool has_shadow, has_start, in_place;
    uint32_t max_lag, inflight;
    uint32_t warnings; // that the runs of this stream gave
    float *table;      // of random elements, which a gradient repeats; owned
    float *gradient;   // of the last step; owned
};

// With about elements_min to elements_max elements. Returns 0 or -1.
int crash_stream_init(struct crash_stream *stream, uint64_t seed, uint64_t elements_min, uint64_t elements_max);
void crash_stream_deinit(struct crash_stream *stream);

// Opens a run of the stream in `logdir`. Returns 0 or -1.
int crash_stream_open(struct crash_stream *stream, const char *socket, const char *logdir,
                      struct gradientd_run **ret_run);

// Submits step `step`, from 1 on. Returns gradientd_submit()'s result.
int crash_stream_submit(struct crash_stream *stream, struct gradientd_run *run, int64_t step);

// Submits steps 1..`steps` to a daemon that nobody disturbs. Returns 0, with *ret_path (the caller's) the event file,
// or -1.
int crash_stream_run_alone(struct crash_stream *stream, struct crash_daemon *daemon, int64_t steps, char **ret_path);

// ---- event files

// Returns 0 where both files hold the same bytes, else -1 after saying where they differ.
int crash_files_compare(const char *path, const char *expected_path);

// Whether the file ends inside a record, where its bytes up to *boundary are whole records; moves *boundary on to the
// last record's end.
bool crash_file_is_torn(const char *path, uint64_t *boundary);

// What a file of a trainer that was killed holds.
struct crash_file_content {
    int64_t steps; // it has each of 1..steps once, in order
    bool ended;    // and SessionLog STOP at its end
};

// Returns 0, or -1 where a record is damaged or a step missing, twice there, or out of order.
int crash_file_read(const char *path, struct crash_file_content *ret_content);

// The one event file in `directory`; false: there is none.
bool crash_file_find(const char *directory, char ret_path[static CRASH_PATH_BYTES]);

// ---- the tests; each returns 0 or -1 and prints a line that begins with "ok: " for what held

int crash_kill_daemons(struct crash_daemon *daemon, uint32_t kills, uint64_t seed);
int crash_visit_points(struct crash_daemon *daemon, uint64_t seed);
int crash_kill_trainers(struct crash_daemon *daemon, uint32_t kills, uint64_t seed);
