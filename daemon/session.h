// One client from connect to the end of its run: the order of messages, and the run's work on the loop's thread pool.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "alert_ring.h"
#include "arena.h"
#include "counters.h"
#include "decode.h"
#include "holdings.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "message.h"

enum { GD_WORKERS_MAX = 64 };

struct gd_session;

// A turn of the loop, in which its thread works for runs for a short time only: the next clients wait meanwhile.
struct gd_turn {
    uint64_t number;
    uint64_t work_until_ns; // on uv_hrtime()'s clock; 0: nothing was worked on yet
};

// What all sessions share; outlives them.
struct gd_session_host {
    uv_loop_t *loop;
    struct gd_arena *arena;
    struct gd_submission_pool *submissions;
    const struct gd_kernels *kernels;
    bool stopping;               // the daemon ends: runs are left open-ended
    const char *state_directory; // for the event files of clients that bring none; NULL: there is none
    struct gd_turn *turn;        // of the loop, under way
    struct gd_counters *counters;
    struct gd_thread_counters *thread_counters;
    struct gd_alert_ring *alerts;
    gid_t admin_group;             // sees all users' runs; (gid_t)-1: none
    uint32_t attach_timeout_ms;    // that a client may take from Hello to Attach
    uint32_t workers;              // into how many parts a snapshot's work is divided at most, 1 to GD_WORKERS_MAX
    void (*notify)(void *context); // called on a writer thread: gd_session_advance() may have something to do
    // The session that holds this memory, NULL: none.
    struct gd_session *(*holder_of)(void *context, const struct gd_memory_id *id);
    // gd_session_check_deadline() will have something to do in that many milliseconds.
    void (*watch)(void *context, uint64_t milliseconds);
    // Answers a StatusRequest of that session's client. Returns 0 or -ENOMEM.
    int (*answer_status)(void *context, struct gd_session *asker, const struct gd_status_request *request);
    void (*attached)(void *context);                         // one session more has a run
    void (*gone)(void *context, struct gd_session *session); // the session is freed after this call
    void *context;
};

// Takes over `fd`, and `holdings`, which is {0} afterwards. Returns 0, or a negative errno; then both are the caller's
// still.
__attribute__((warn_unused_result)) int gd_session_new_consume(const struct gd_session_host *host, int fd,
                                                               struct gd_holdings *holdings,
                                                               struct gd_session **ret_session);

// Drops a client that has let its time to say Hello, or from there to Attach, pass; tells of one whose run is silent.
// Returns the milliseconds it has left, UINT64_MAX when there is no deadline, or it has passed.
uint64_t gd_session_check_deadline(struct gd_session *session);

// Whether its run's memory is this one.
bool gd_session_holds(const struct gd_session *session, const struct gd_memory_id *id);

// Whether it has a run that is attached or still being finished.
bool gd_session_has_run(const struct gd_session *session);

// Adds what of it counts for the daemon as a whole: its connection, its run and what is queued of that.
void gd_session_add_up(const struct gd_session *session, struct gd_daemon_status *totals);

// Starts whatever work the run has, and ends the session when it has nothing more to do.
void gd_session_advance(struct gd_session *session);

// The daemon stops: takes what has arrived, finishes it, and goes.
void gd_session_stop(struct gd_session *session);

// Gives up records that cannot be written now.
void gd_session_abandon(struct gd_session *session);
