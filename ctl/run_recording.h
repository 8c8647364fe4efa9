// The recording of one run: what its trainer says and shows, from OpenRun on.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "memory.h"
#include "recording_writer.h"

// An OpenRun as it came, and what it means.
struct gd_opening {
    uint8_t *message; // owned
    size_t message_bytes;
    uint8_t *payload; // owned: the group table
    size_t payload_bytes;
    struct gd_open_run *open_run; // owned, NULL: none
    struct gd_layout layout;
};

void gd_opening_deinit(struct gd_opening *opening);

// A run's shared memory, to look at. {0}: it has none.
struct gd_memory_view {
    struct gd_memory_id id;
    const uint8_t *base;
    uint64_t bytes;
};

// Maps `fd` (borrowed), a sealed memfd. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_memory_view_init(struct gd_memory_view *view, int fd);
void gd_memory_view_deinit(struct gd_memory_view *view);

struct gd_run_recording {
    struct gd_run_recording *next;      // of its owner
    char *path;                         // owned
    struct gd_recording_writer *writer; // owned, NULL: the file is closed
    bool ended;                         // it has all that there will be
    struct gd_opening opening;
    struct gd_memory_view memory;
    uint64_t sequence;       // of what was recorded last
    uint64_t close_sequence; // of CloseRun, 0: it has not come
    uint64_t snapshots;
    enum gd_recorded_outcome outcome; // once it has ended
    char fault[96];                   // why it is not whole, "": it is
};

// Takes over `path` and the writer, the opening and the view, which are left empty. Returns NULL where there is no
// memory, and takes over nothing then.
struct gd_run_recording *gd_run_recording_new_consume(char *path, struct gd_recording_writer *writer,
                                                      struct gd_opening *opening, struct gd_memory_view *memory);

// Records a submission that is about to go on, elements included: until the daemon has it, nobody writes to its slots.
// One that was recorded already, and comes again to another daemon, is left alone.
void gd_run_recording_take(struct gd_run_recording *recording, const struct gd_submission *submission,
                           struct gd_recorded_bytes message, struct gd_recorded_bytes payload);

// Nothing more comes; `text` is of an Error, or NULL. The file is ended meanwhile, if it has not been before.
void gd_run_recording_end(struct gd_run_recording *recording, enum gd_recorded_outcome outcome, const char *text);

// Says why the recording is not whole. The first reason counts, and is said on standard error.
__attribute__((format(printf, 2, 3))) void gd_run_recording_fail(struct gd_run_recording *recording, const char *format,
                                                                 ...);

// Waits until the file has ended, as left where nothing else has ended it.
void gd_run_recording_close(struct gd_run_recording *recording);

// Closes it first. NULL is allowed.
void gd_run_recording_free(struct gd_run_recording *recording);
