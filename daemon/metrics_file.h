// The file that the metrics are written to, whole or not at all: a temporary one beside it takes its place. On a thread
// of its own, so that a file system that hangs holds up nothing.
#pragma once

#include <stdbool.h>

#include "metrics_text.h"

struct gd_metrics_file;

// Starts the thread. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_metrics_file_new(const char *path, struct gd_metrics_file **ret_file);

// Has the thread write `text`, which is copied. Returns false where it has not done with the one before. Errors are
// logged, once until a write goes well.
bool gd_metrics_file_write(struct gd_metrics_file *file, const struct gd_metrics_text *text);

// Writes the last text; gives that, and the one before, `milliseconds`. Frees the file, unless the thread is hanging:
// then it has it until the process ends. NULL is allowed.
void gd_metrics_file_finish(struct gd_metrics_file *file, const struct gd_metrics_text *text, int milliseconds);
