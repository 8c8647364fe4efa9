// TensorBoard records: values in, bytes out. Pure: no clock, no I/O, no allocation.
//
// A record is  u64le length, u32le masked crc32c(length), data, u32le masked crc32c(data); data is a serialised
// tensorboard.Event (proto/tensorboard.proto). Every function appends one whole record to a buffer.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    GD_RECORD_OVERHEAD_BYTES = 16,
};

// Where records go. `used` never passes `capacity`: the caller sizes the buffer by the bounds below, and a record that
// does not fit is a fault of the caller (asserted).
struct gd_record_buffer {
    uint8_t *data;
    size_t capacity;
    size_t used;
};

// One scalar of a step. `description` non-NULL: this is the tag's first value in the file, so its metadata is written
// too (plugin `scalars`, data class SCALAR, and the description unless it is ""). Strings are borrowed.
struct gd_scalar {
    const char *tag;
    size_t tag_bytes;
    const char *description;
    float value;
};

static inline struct gd_scalar gd_scalar_of(const char *tag, float value, const char *description) {
    return (struct gd_scalar){tag, strlen(tag), description, value};
}

// The records that open every file: the version and writer, then SessionLog START at `first_step`.
void gd_event_append_start(struct gd_record_buffer *buffer, double wall_time, int64_t first_step);

// The record that ends a file: SessionLog STOP.
void gd_event_append_stop(struct gd_record_buffer *buffer, double wall_time, int64_t step);

// One Event with all scalars of a step; nothing for n_scalars = 0.
void gd_event_append_scalars(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                             const struct gd_scalar *scalars, size_t n_scalars);

// Exactly what gd_event_append_scalars() would append for one scalar as part of a step: used to bound a step's bytes.
size_t gd_event_scalar_bytes_max(size_t tag_bytes, size_t description_bytes);
