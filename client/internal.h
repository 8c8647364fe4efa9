// The inside of the C client.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradientd.pb-c.h"
#include "gradientd/client.h"
#include "gradientd/protocol.h"
#include "user_tags.h"

enum {
    CLIENT_OUTPUT_BYTES_MAX = 1 << 20, // unsent messages kept while the daemon does not read
    CLIENT_CLOSE_BYTES = 64,           // room beyond it for CloseRun, so that a run can always be ended
};

struct client_group {
    uint64_t numel;
    uint64_t offset; // elements before it in a slot
};

struct client_slots {
    uint8_t *base; // of slot 0
    uint64_t stride_bytes;
    uint32_t count;
    _Atomic uint64_t *words; // in shared memory: the sequence of the commit that freed the slot
    uint64_t *used_sequence; // of the Snapshot that used it last, 0: never
};

struct gradientd_run {
    int socket;      // -1: detached
    uint8_t *alive;  // a page that the kernel wipes in a forked child: 1 here, 0 there
    uint8_t *memory; // the shared memory
    uint64_t memory_bytes;
    struct client_slots slots;
    _Atomic uint32_t *waiting;
    _Atomic uint32_t *notices;
    uint32_t notices_seen;

    struct client_group *groups;
    uint32_t n_groups;
    uint64_t elements;
    uint32_t n_parameter_groups;

    struct gd_user_tags *tags;
    uint64_t sequence;          // of the last message that commits
    uint64_t released_sequence; // the highest the daemon named in a Released
    int64_t first_step;
    int64_t step;            // of the last submitted or skipped step
    int64_t snapshot_step;   // of the last one that was handed over
    uint64_t optimizer_step; // of the last applied one
    uint64_t skipped;
    int64_t acquired; // slot handed out by gradientd_acquire(), -1: none

    // messages are built in place, without allocating
    Gradientd__ParameterGroupStep *rates;
    Gradientd__ParameterGroupStep **rate_pointers;
    Gradientd__Scalar *scalars;
    Gradientd__Scalar **scalar_pointers;
    uint8_t *groups_present;
    uint32_t *tag_indices;
    uint8_t *output; // CLIENT_OUTPUT_BYTES_MAX + CLIENT_CLOSE_BYTES: bytes the socket has not taken yet
    size_t output_bytes;
    uint8_t *input; // one message of the daemon
    size_t input_bytes;

    double max_stall;
    double close_timeout;
    void (*warn)(void *context, const char *text);
    void *warn_context;
    char *event_path;
    struct gradientd_error error;
};

// ---- connect.c

// A connected socket as client.h describes, or a negative errno with *ret_error set.
int client_connect(const struct gradientd_options *options, struct gradientd_error *ret_error);

// ---- wire.c: frames over the socket, which never blocks

// Appends a message (and, for OpenRun, its payload) to the output and sends what the socket takes. Returns 0,
// -ENOBUFS when the output is full (nothing was added), or another negative errno when the daemon is gone.
int client_send(struct gradientd_run *run, const Gradientd__ClientMessage *message);

// Sends what is left of the output. Returns 0 or a negative errno when the daemon is gone.
int client_flush(struct gradientd_run *run);

// Reads one message: 1 and *ret_message (freed by the caller), 0 when none is complete by `deadline` (CLOCK_MONOTONIC
// seconds; 0: do not wait), -ECONNRESET when the daemon is gone. Keeps sending the output while it waits.
int client_receive(struct gradientd_run *run, double deadline, Gradientd__DaemonMessage **ret_message);

double client_now_monotonic(void);
double client_now(void);

// ---- attach.c: what happens between connect and the first step

int client_attach(struct gradientd_run *run, const struct gradientd_options *options,
                  struct gradientd_error *ret_error);

// ---- event_path.c

// Creates the run's directory and a new event file whose name sorts after all others there. Returns the descriptor and
// *ret_path (the caller's), or a negative errno with *ret_error set.
int client_create_event_file(const char *logdir, const char *run, char **ret_path, struct gradientd_error *ret_error);

// ---- check.c: what a trainer passes; a fault costs it one call, where the daemon would end the run

// Each returns 0, or -EINVAL with run->error set and nothing changed. On success the tags count as used at the step.
int client_check_step(struct gradientd_run *run, const struct gradientd_step *step);
int client_check_scalars(struct gradientd_run *run, int64_t step, const struct gradientd_scalar *scalars,
                         size_t n_scalars);

// ---- submit.c

// Sends CloseRun and waits at most close_timeout until the event file is complete. Returns a gradientd_result.
int client_end(struct gradientd_run *run, enum gradientd_outcome outcome);

// ---- warning.c

// Writes a line to stderr; neither blocks nor, where stderr is a pipe nobody reads any more, raises SIGPIPE.
void client_print_warning(const char *line);

// ---- open.c

// Formats into `error` and returns -code.
__attribute__((format(printf, 3, 4))) int client_fail(struct gradientd_error *error, int code, const char *format, ...);
