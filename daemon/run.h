// A run: from OpenRun to the end of its event file. No loop, no clock, no socket: the server calls it.
//
// Threads: the loop thread owns everything, but from gd_run_begin() to gd_run_finish() what the submission under way
// touches (the state, the analysis, the records) belongs to the workers that call gd_run_work() and gd_run_commit().
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "analysis.h"
#include "error.h"
#include "event_file.h"
#include "heatmap.h"
#include "layout.h"
#include "memory.h"
#include "message.h"
#include "quota.h"
#include "run_state.h"
#include "scalar_list.h"
#include "side_analysis.h"
#include "user_tags.h"

enum gd_run_phase {
    GD_RUN_LAID_OUT, // knows its layout, waits for its memory
    GD_RUN_ACTIVE,   // takes submissions
    GD_RUN_CLOSING,  // CloseRun was accepted, or the trainer is gone: what is queued is finished, then the file ends
    GD_RUN_LEAVING,  // the daemon stops: what is queued is finished, the file stays open-ended
    GD_RUN_ENDED,    // nothing more is appended; the writer finishes the file
};

enum {
    // What a run holds of submissions before its socket is not read any more: their number, and their bytes for those
    // with many scalars or parameter groups. One accepted submission has at most 0.9 MiB.
    GD_RUN_QUEUE_MAX = 1024,
    GD_RUN_QUEUE_BYTES_MAX = 4 << 20,
};

// Of a series' groups: what the step says of smaller batches.
struct gd_series_norms {
    uint64_t elements; // of all its groups, present or not
    double small;      // their squared norm
};

enum gd_slot_use { GD_SLOT_FREE, GD_SLOT_TAKEN };

struct gd_run {
    enum gd_run_phase phase;
    struct gd_open_run *open_run; // owned
    struct gd_layout layout;
    struct gd_memory memory;
    struct gd_event_file *file;           // owned
    char event_name[GD_EVENT_NAME_BYTES]; // of a resumed run's file in the state directory, "": none
    struct gd_analysis *analysis;         // owned
    struct gd_user_tags *user_tags;

    // what has been received
    uint64_t received_sequence;
    int64_t received_step;
    uint64_t received_optimizer_step; // of the last applied snapshot, or of the start vectors before the first
    uint64_t received_starts;         // bit per array of the optimiser state
    struct gd_submission *queue_head, **queue_tail;
    uint32_t queued;
    size_t queued_bytes;
    struct gd_submission *arriving;         // owned: accepted, its elements are still on their way
    _Atomic uint8_t slot_use[GD_SLOTS_MAX]; // taken at receipt by the loop, freed at commit by a worker
    _Atomic uint8_t side_slot_use[GD_SIDES][GD_SLOTS_MAX];

    // what has been committed
    struct gd_run_state *state;
    uint64_t appended_bytes;
    struct gd_submission *working; // owned, the submission under way
    struct gd_analysis_input input;
    struct gd_side_analysis *side_analysis; // owned, NULL: the run has no such streams
    struct gd_side_input side_input;
    bool analyses;                        // it has elements to work on
    uint8_t *records;                     // layout.step_records_max bytes
    uint8_t *content;                     // owned: see dashboard.h
    struct gd_scalar_list *scalars;       // owned: of the Event that is made
    struct gd_heatmap *heatmap;           // owned
    struct gd_series_norms *series_norms; // owned, per series: of the step under way
};

// What the server should do next for a run.
enum gd_run_next {
    GD_RUN_WAIT,  // nothing queued, or the outbox is full
    GD_RUN_BEGIN, // call gd_run_begin()
    GD_RUN_END,   // queue empty and the run is closing or leaving: call gd_run_end()
};

// What a run takes beside the memory of its layout, at most: the OpenRun itself, and what gd_run_new_consume(),
// gd_run_attach() and the queue allocate.
uint64_t gd_run_own_bytes(const struct gd_open_run *open_run, const struct gd_layout *layout);

// Takes over `open_run` on success. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_run_new_consume(struct gd_open_run *open_run, struct gd_run **ret_run);

// No submission may be under way and the event file must be done. NULL is allowed.
void gd_run_free(struct gd_run *run);

struct gd_run_attachment {
    int memory_fd;         // consumed in every case, closed by gd_run_free(); -1: elements come inline
    int event_fd;          // likewise; -1: the writer opens or creates a file in the state directory
    struct gd_charge *fds; // of both: what is closed on a thread of its own takes its part along
    uid_t uid;             // of the client, like the pid
    pid_t pid;
    const char *state_directory; // borrowed, NULL: there is none
    gid_t admin_group;           // see gd_event_place
    const struct gd_kernels *kernels;
    struct gd_thread_counters *counters; // NULL: nobody counts
    void (*notify)(void *context);       // see event_file.h
    void *notify_context;
};

// Maps the memory, hands the event file to its writer, and begins with the first records; or goes on after the last
// commit where the memory holds one (state->sequence says which). Returns 0, or a negative
// errno with *ret_error set where it is -EBADMSG. Whether the file can be taken, gd_event_file_is_accepted() tells
// later.
__attribute__((warn_unused_result)) int gd_run_attach(struct gd_run *run, const struct gd_run_attachment *attachment,
                                                      struct gd_error *ret_error);

// The event file is accepted: where it is the daemon's own, keeps its name for whoever resumes the run.
void gd_run_keep_event_name(struct gd_run *run);

// Checks a submission against the run and queues it, or keeps it as `arriving` where its elements come inline; consumed
// in every case. Returns 0, or a negative errno with *ret_error set.
__attribute__((warn_unused_result)) int gd_run_submit_consume(struct gd_run *run, struct gd_submission *submission,
                                                              struct gd_error *ret_error);

// Where the arriving submission's elements go: a start vector's to its own place, a snapshot's to a slot that is the
// snapshot's from now on. NULL when no slot is free: ask again after a commit.
uint8_t *gd_run_arriving_elements(struct gd_run *run, uint64_t *ret_bytes);

// The arriving submission's elements are all there: queues it.
void gd_run_queue_arrived(struct gd_run *run);

// Whether as much is queued as the run may hold.
bool gd_run_is_full(const struct gd_run *run);

// No more submissions will come: the trainer is gone (`leaving` false) or the daemon stops (true).
void gd_run_stop(struct gd_run *run, bool leaving);

enum gd_run_next gd_run_next(const struct gd_run *run);

// Whether each of its submissions is so little work that handing it to another thread would cost more.
bool gd_run_is_light(const struct gd_run *run);

// Takes the head of the queue. Returns into how many parts (1 to parts_max) its work divides.
uint32_t gd_run_begin(struct gd_run *run, uint32_t parts_max);
void gd_run_work(struct gd_run *run, uint32_t part, uint32_t parts);

// After all parts, on any one thread: diagnostics, records, commit. Returns true when the client waits for Released.
bool gd_run_commit(struct gd_run *run);

// After gd_run_commit(), on the loop thread: the submission is done with, and goes to `pool`.
void gd_run_finish(struct gd_run *run, struct gd_submission_pool *pool);

// Appends the end records where the run is closing, and lets the writer finish the file.
void gd_run_end(struct gd_run *run);
