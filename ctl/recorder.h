// The recordings of all runs that a command opens: FILE for the first, FILE.2 for the second and so on.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "run_recording.h"

struct gd_recorder {
    const char *path; // borrowed
    int level;
    bool force;
    struct gd_recording_writer *first;   // of the first run, once there is one
    struct gd_run_recording *recordings; // owned, the last one first
    unsigned n_files;                    // that were asked for, whether they could be had or not
    bool lost;                           // a run that is not recorded at all
};

// Creates FILE. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_recorder_init(struct gd_recorder *recorder, const char *path, int level,
                                                         bool force);

// The recording of a run that was attached: a new one, which takes over the opening and the view, or the one there is
// of the same memory, which goes on. NULL: it is not recorded, which was said on standard error.
struct gd_run_recording *gd_recorder_attach(struct gd_recorder *recorder, struct gd_opening *opening,
                                            struct gd_memory_view *memory, uint64_t committed_sequence);

// Says that a run is not recorded.
void gd_recorder_lose(struct gd_recorder *recorder, const char *reason);

// Ends all recordings, says what became of each (`json`: an object a line on standard output), and frees them. A FILE
// without a run is removed. Returns whether there is a recording, and all are whole.
__attribute__((warn_unused_result)) bool gd_recorder_finish(struct gd_recorder *recorder, bool json);
