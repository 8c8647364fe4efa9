// What a client is told when something it sent cannot be accepted.
#pragma once

#include <stdint.h>

enum { GD_ERROR_TEXT_BYTES = 256 };

// As on the wire (ErrorCode in proto/gradientd.proto).
enum gd_error_code {
    GD_ERROR_PROTOCOL = 1,
    GD_ERROR_INVALID = 2,
    GD_ERROR_UNSUPPORTED = 3,
    GD_ERROR_QUOTA = 4,
    GD_ERROR_OWNED = 5,
    GD_ERROR_MEMORY = 6,
    GD_ERROR_INTERNAL = 7,
    GD_ERROR_FORBIDDEN = 8,
    GD_ERROR_CODES, // one more than the last; there is no code 0
};

struct gd_error {
    enum gd_error_code code;
    const char *field;              // static
    char text[GD_ERROR_TEXT_BYTES]; // names the field, the value and the limit; valid UTF-8
};

// A code in lower case, as "forbidden"; static.
const char *gd_error_code_name(enum gd_error_code code);

// Fills `ret_error` and returns -EBADMSG, so that a check reads  return gd_error_set(...).  Values that came from the
// client are passed already known to be printable, or as numbers.
__attribute__((format(printf, 4, 5))) int gd_error_set(struct gd_error *ret_error, enum gd_error_code code,
                                                       const char *field, const char *format, ...);

// Refuses a value outside least to most as GD_ERROR_INVALID, naming all three. Returns 0 or -EBADMSG.
__attribute__((warn_unused_result)) int gd_error_check_range(const char *field, uint64_t value, uint64_t least,
                                                             uint64_t most, struct gd_error *ret_error);
