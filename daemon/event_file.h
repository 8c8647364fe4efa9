// A run's event file and the one thread that writes it, so that a slow or hung file system holds up only this run.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "counters.h"
#include "error.h"
#include "state_directory.h"

struct gd_event_file;

struct gd_event_file_options {
    int fd; // taken over; -1: the file at `place` is opened or created
    struct gd_event_place place;
    const uint8_t *outbox; // ring: byte b of the file lies at b mod outbox_bytes
    uint64_t outbox_bytes;
    uint64_t step_records_max;           // room for as many bytes is there before a commit begins
    uint64_t appended_bytes;             // of a resumed run: where the outbox ends
    uint64_t written_bytes;              // of those, what is in the file already
    uint64_t *written_word;              // in shared memory, for whoever resumes the run: stored, never read
    double wall_time;                    // of what fills the place of lost records: OpenRun's
    struct gd_thread_counters *counters; // NULL: nobody counts
    void (*notify)(void *context);       // called on the writer thread after each batch and at the end
    void *notify_context;
};

// Checks that `fd` is a regular file open for writing without O_APPEND. Of a run that `resumes` it may have O_APPEND,
// which is waited for to go away, and less than the `written_bytes` bytes, but for at most a GiB, which is mended: else
// the run would be lost for good. Returns 0, or a negative errno with *ret_error.
__attribute__((warn_unused_result)) int gd_event_file_check(int fd, bool resumes, uint64_t written_bytes,
                                                            struct gd_error *ret_error);

// Starts the thread, which first opens and checks the file: asking a hung file system takes forever too. On success
// the file owns options->fd. Returns 0, or a negative errno.
__attribute__((warn_unused_result)) int gd_event_file_new(const struct gd_event_file_options *options,
                                                          struct gd_event_file **ret_file);

// Whether there is a file to write: 1, 0 when it is still being opened and checked, or a negative errno with *ret_error
// set when it was refused or could not be opened; then nothing is written, and it is done. notify is called when this
// changes.
__attribute__((warn_unused_result)) int gd_event_file_is_accepted(struct gd_event_file *file,
                                                                  struct gd_error *ret_error);

// The path of a file of the state directory, valid as long as `file`; NULL for another. Call it only once it is
// accepted.
const char *gd_event_file_path(const struct gd_event_file *file);

// Where the file is, as far as the kernel knows it, in at most `size` bytes: it may have been renamed, and what has
// been deleted ends in " (deleted)". Returns false where that is not known, or the file is closed. Asks no file system.
bool gd_event_file_where(struct gd_event_file *file, char *ret_path, size_t size);

// The outbox now ends at byte `appended_bytes` of the file. Any thread, one at a time.
void gd_event_file_append(struct gd_event_file *file, uint64_t appended_bytes);

// Bytes that are in the file; any thread. Fewer than before where somebody has cut the file off: the outbox still holds
// all bytes from here on, so there is room for a commit where appended bytes less these, and the commit, fit into it.
uint64_t gd_event_file_written(struct gd_event_file *file);

// Of the appended bytes, those that are not in the file yet; any thread.
uint64_t gd_event_file_waiting(struct gd_event_file *file);

// Nothing more will be appended: what is left is written at once, then the file is closed and notify called.
void gd_event_file_finish(struct gd_event_file *file);

// True once everything is written (or given up) and the file is closed.
bool gd_event_file_is_done(struct gd_event_file *file);

// Gives up what cannot be written now (a full disk, at shutdown) instead of trying again; returns at once.
void gd_event_file_abandon(struct gd_event_file *file);

// Joins the thread; the file must be done. NULL is allowed.
void gd_event_file_free(struct gd_event_file *file);
