#include "event_records.h"

#include <criterion/criterion.h>

static uint8_t storage[1 << 20];

struct gd_record_buffer empty_buffer(void) {
    return (struct gd_record_buffer){.data = storage, .capacity = sizeof(storage)};
}

void assert_bytes(const struct gd_record_buffer *buffer, const char *expected_hex) {
    static const char digits[] = "0123456789abcdef";
    static char hex[4096];
    cr_assert_lt(2 * buffer->used, sizeof(hex));
    for (size_t i = 0; i < buffer->used; i++) {
        hex[2 * i] = digits[buffer->data[i] >> 4];
        hex[2 * i + 1] = digits[buffer->data[i] & 15];
    }
    hex[2 * buffer->used] = '\0';
    cr_assert_str_eq(hex, expected_hex);
}
