// Records that a test appends, and looks at byte for byte.
#pragma once

#include "event.h"

// With room for a MiB; each call empties it again.
struct gd_record_buffer empty_buffer(void);

// Fails the test unless the buffer holds these bytes, in lower-case hexadecimal.
void assert_bytes(const struct gd_record_buffer *buffer, const char *expected_hex);
