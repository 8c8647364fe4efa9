// A zero byte in a tag: protobuf-c's strings end there, so that only the event's own bytes show it.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whether a tag of an event, which protobuf-c has parsed, has a zero byte in it.
bool gd_tag_bytes_have_zero(const uint8_t *event, size_t bytes);
