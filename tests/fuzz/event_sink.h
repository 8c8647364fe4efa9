// event_file.h without the thread and the file, for runs by the million: the test says when the outbox is written, and
// what a run appends is checked there and then.
#pragma once

#include "event_file.h"

// Writes what is appended.
void event_sink_write(struct gd_event_file *file);

bool event_sink_is_finished(const struct gd_event_file *file);
