// An event file that somebody has cut off: where its whole records end, and records without a value that fill what is
// gone, so that readers get past it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    GD_EVENT_REPAIR_HEADER_BYTES = 12,
    GD_EVENT_REPAIR_FILLER_BYTES_MIN = 30,
};

// Whether these bytes are the header of a record, with what its checksum says: and how much data it has.
bool gd_event_repair_is_header(const uint8_t *header, uint64_t *ret_data_bytes);

// Where the last whole record within the first `bytes` bytes of the file ends; 0 where `fd` is not open for reading.
// Returns 0, or a negative errno.
__attribute__((warn_unused_result)) int gd_event_repair_find_end(int fd, uint64_t bytes, uint64_t *ret_end);

// Cuts the file off at byte `from` and fills it up to byte `to`, both places where a record ends: with Events of this
// time that hold one unknown field of zeros, which every reader of TensorBoard's steps over. Most of them is a hole.
// They are the same place, or GD_EVENT_REPAIR_FILLER_BYTES_MIN bytes apart at the least. Returns 0, or a negative
// errno; then the file ends somewhere between the two.
__attribute__((warn_unused_result)) int gd_event_repair_fill(int fd, uint64_t from, uint64_t to, double wall_time);
