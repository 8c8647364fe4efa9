// From a run's outbox into its event file, a batch at a time, whatever happens to the file meanwhile. No thread: one
// calls gd_event_output_write(), any others append.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "counters.h"
#include "log.h"

struct gd_event_output {
    int fd;
    const char *run;       // its name, borrowed like all pointers
    const char *path;      // NULL: the kernel is asked where there is something to tell
    const uint8_t *outbox; // ring: byte b of the file lies at b mod outbox_bytes
    uint64_t outbox_bytes;
    uint64_t step_records_max;           // room for as many bytes is there before a commit begins
    uint64_t *written_word;              // in shared memory: stored, never read
    double wall_time;                    // of what fills the place of lost records
    struct gd_thread_counters *counters; // NULL: nobody counts
    bool unlinked;                       // no directory has the file any more
    _Atomic uint64_t appended_bytes;     // stored by whoever appends
    _Atomic uint64_t written_bytes;      // stored by the writer alone, see gd_event_file_written()
};

// What a batch comes to beside 0 and a negative errno.
enum {
    GD_EVENT_OUTPUT_APPENDS = 1, // somebody has set O_APPEND, with which pwrite ignores its offset: nothing is written
    GD_EVENT_OUTPUT_SPOILT = 2, // somebody has cut it off meanwhile, which is logged: some of it is to be written again
};

// Writes what has been appended, stopping at the first error. Looks first whether the file is what it was, also where
// there is nothing to write, and mends it where it has been cut off. Returns 0, a negative errno or one of the above;
// written_bytes says how far it came.
__attribute__((warn_unused_result)) int gd_event_output_write(struct gd_event_output *output);

// Logs a line that names the run and the file.
__attribute__((format(printf, 3, 4))) void gd_event_output_log(const struct gd_event_output *output,
                                                               enum gd_log_level level, const char *format, ...);
