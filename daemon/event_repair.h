// An event file that somebody has cut off: where its whole records end, and records without a value that fill what is
// gone, so that readers get past it.
#pragma once

#include <stdint.h>

// Where the last whole record within the first `bytes` bytes of the file ends; 0 where `fd` cannot be read.
uint64_t gd_event_repair_find_end(int fd, uint64_t bytes);

// Cuts the file off at byte `from` and fills it up to byte `to`, both places where a record ends: with Events of this
// time that hold one unknown field of zeros, which every reader of TensorBoard's steps over. Most of them is a hole.
// Where there is no room for one (no record of ours is that short) it does so from the file's beginning. Returns 0, or
// a negative errno; then it can be done again.
__attribute__((warn_unused_result)) int gd_event_repair_fill(int fd, uint64_t from, uint64_t to, double wall_time);
