// How an Event becomes a record: for the files that make Events (event.c, event_tensor.c).
#pragma once

#include "event.h"
#include "tensorboard.pb-c.h"

// An Event without content. `step` 0 is not written, as TensorFlow's own (proto3) writer leaves it out.
Tensorboard__Event gd_event_at(double wall_time, int64_t step);

// Appends it as one record.
void gd_event_append(struct gd_record_buffer *buffer, const Tensorboard__Event *event);

// protobuf-c's structs hold char *, also for messages that are only packed.
static inline char *gd_event_borrow(const char *text) {
    return (char *)(uintptr_t)text;
}
