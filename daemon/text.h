// Text that came from outside.
#pragma once

#include <stdbool.h>
#include <stddef.h>

// How many of the first `bytes` bytes are clean, in whole characters; clean is what the next function says.
size_t gd_text_clean_bytes(const char *text, size_t bytes);

// Whether `bytes` bytes are valid UTF-8 (RFC 3629: shortest form, no surrogates, up to U+10FFFF) without control
// characters (U+0000-U+001F, U+007F-U+009F).
bool gd_text_is_clean(const char *text, size_t bytes);

// Whether a 0-terminated string is clean and 1 to GRADIENTD_NAME_BYTES_MAX bytes: the name of a group or a tag.
bool gd_text_is_name(const char *text);

// Whether a 0-terminated string is a run's name: "" or components of [A-Za-z0-9._=,+-] joined by '/', none of them
// "." or "..", at most GRADIENTD_RUN_BYTES_MAX bytes.
bool gd_text_is_run(const char *text);

// Copies to a buffer of `size` bytes (at least 1), cut to fit, with '?' for all that is not printable ASCII.
void gd_text_copy_printable(char *destination, size_t size, const char *source);
