// Writes a recording: gzip around TFRecords around tf.train.Examples, on a thread of its own, so that whoever records
// waits neither for the compression nor for the disk, as long as they keep up.
//
// A writer that fails (a full disk) keeps why, and from then on takes records without writing them: whoever records has
// something better to do than to stop.
#pragma once

#include <stdbool.h>

#include "recorded.h"

struct gd_recording_writer;

// Creates the file; one that exists is refused (-EEXIST), or with `force` replaced. `level` is gzip's, 0 to 9. Returns
// 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_recording_writer_new(const char *path, int level, bool force,
                                                                struct gd_recording_writer **ret_writer);

// Adds a record, whose parts are copied. Waits while too much is not written yet, but not for ever. Returns 0, or the
// first failure: -E2BIG where a record is longer than it can be, -ETIMEDOUT where the file takes nothing.
__attribute__((warn_unused_result)) int gd_recording_writer_add(struct gd_recording_writer *writer,
                                                                const struct gd_recorded *recorded);

// Nothing more will be added: the rest is written and the file ended, without waiting for it.
void gd_recording_writer_finish(struct gd_recording_writer *writer);

// Waits until the file has ended and frees the writer; one that has hung is left behind. Returns 0, or the first
// failure.
__attribute__((warn_unused_result)) int gd_recording_writer_close(struct gd_recording_writer *writer);
