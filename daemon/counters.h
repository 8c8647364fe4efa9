// What the daemon counts of its own work since it started, and how it is doing: what Status and the metrics file tell.
#pragma once

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"
#include "quota.h"

// What other threads count.
struct gd_thread_counters {
    _Atomic uint64_t event_bytes;  // that were written to event files
    _Atomic uint64_t write_errors; // batches that could not be written, and files that could not be created
    _Atomic uint64_t progress;     // of the analysis: its parts begin and end, and get on, see gd_progress_tell()
    _Atomic uint32_t working;      // parts that are under way
};

// A thread has got on by as much as takes some milliseconds at most. NULL: nobody wants to know.
static inline void gd_progress_tell(_Atomic uint64_t *progress) {
    if (progress)
        atomic_fetch_add_explicit(progress, 1, memory_order_relaxed);
}

// What the loop's thread counts.
struct gd_counters {
    uint64_t connections; // that were accepted
    uint64_t runs;        // that were attached
    uint64_t snapshots;   // committed
    uint64_t skipped;     // steps that trainers have dropped
    uint64_t element_bytes;
    uint64_t analysis_ns;             // of all workers
    uint64_t refused[GD_ERROR_CODES]; // by enum gd_error_code
    uint64_t metrics_skipped;         // times that the metrics file was not written, the one before being under way
};

// The counters and the rest at one moment. The strings are borrowed.
struct gd_daemon_status {
    double started; // seconds since the epoch
    uint32_t workers;
    const char *kernels;
    const char *state_directory; // NULL: there is none
    struct gd_quota_limits limits;
    uint32_t runs; // attached, or still being finished
    uint32_t connections;
    uint64_t queued; // submissions received and not committed yet
    uint64_t resident_bytes;
    uint64_t event_bytes;
    uint64_t write_errors;
    uint64_t alerts; // of all runs, as they are numbered
    struct gd_counters counters;
};
