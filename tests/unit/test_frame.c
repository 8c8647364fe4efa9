#include "frame.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gradientd/protocol.h"

static struct gd_frame parse(const uint8_t *data, size_t bytes, int expected) {
    struct gd_frame frame;
    struct gd_error error = {.text = "none"};
    int result = gd_frame_parse(data, bytes, &frame, &error);
    cr_assert_eq(result, expected, "%zu bytes: %d, %s", bytes, result, error.text);
    return frame;
}

Test(frame, a_message_is_found_once_its_last_byte_is_there) {
    uint8_t data[8 + 5];
    gd_frame_write_header(data, 5, 7);
    for (size_t i = 8; i < sizeof(data); i++)
        data[i] = (uint8_t)i;

    for (size_t bytes = 0; bytes < sizeof(data); bytes++) {
        struct gd_frame frame = parse(data, bytes, GD_FRAME_INCOMPLETE);
        cr_expect_eq(frame.head_bytes, bytes < 8 ? 8 : sizeof(data), "%zu bytes", bytes);
    }
    struct gd_frame frame = parse(data, sizeof(data), GD_FRAME_COMPLETE);
    cr_expect_eq(frame.message, data + 8);
    cr_expect_eq(frame.message_bytes, 5);
    cr_expect_eq(frame.payload_bytes, 7);
    cr_expect_eq(frame.head_bytes, sizeof(data));
}

Test(frame, what_follows_a_message_is_not_part_of_it) {
    uint8_t data[64] = {0};
    gd_frame_write_header(data, 3, 2);
    for (size_t bytes = 11; bytes <= sizeof(data); bytes++)
        cr_expect_eq(parse(data, bytes, GD_FRAME_COMPLETE).head_bytes, 11, "%zu bytes", bytes);
}

Test(frame, an_empty_message_is_a_frame) {
    uint8_t data[8];
    gd_frame_write_header(data, 0, 0);
    struct gd_frame frame = parse(data, sizeof(data), GD_FRAME_COMPLETE);
    cr_expect_eq(frame.head_bytes, 8);
    cr_expect_eq(frame.message_bytes, 0);
    cr_expect_eq(frame.payload_bytes, 0);
}

Test(frame, sizes_are_bounded) {
    const struct {
        uint32_t message_bytes, payload_bytes;
        const char *field; // NULL: accepted
    } cases[] = {
        {1 << 20, 0, NULL},
        {0, 1 << 30, NULL},
        {1 << 20, 1 << 30, NULL},
        {(1 << 20) + 1, 0, "message_bytes"},
        {UINT32_MAX, 0, "message_bytes"},
        {0, (1 << 30) + 1, "payload_bytes"},
        {1 << 20, UINT32_MAX, "payload_bytes"},
        {UINT32_MAX, UINT32_MAX, "message_bytes"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t data[8];
        struct gd_frame frame;
        struct gd_error error = {.field = "", .text = ""};
        gd_frame_write_header(data, cases[i].message_bytes, cases[i].payload_bytes);
        int result = gd_frame_parse(data, sizeof(data), &frame, &error);
        if (!cases[i].field) {
            bool whole = cases[i].message_bytes == 0;
            cr_expect_eq(result, whole ? GD_FRAME_COMPLETE : GD_FRAME_INCOMPLETE, "case %zu: %s", i, error.text);
            cr_expect_eq(frame.head_bytes, 8 + (size_t)cases[i].message_bytes, "case %zu", i);
            continue;
        }
        char value[16], limit[16];
        bool message = strcmp(cases[i].field, "message_bytes") == 0;
        snprintf(value, sizeof(value), "%u", message ? cases[i].message_bytes : cases[i].payload_bytes);
        snprintf(limit, sizeof(limit), "%d", message ? GRADIENTD_MESSAGE_BYTES_MAX : GRADIENTD_PAYLOAD_BYTES_MAX);
        cr_expect_eq(result, -EBADMSG, "case %zu", i);
        cr_expect_eq(error.code, GD_ERROR_PROTOCOL, "case %zu", i);
        cr_expect_str_eq(error.field, cases[i].field, "case %zu", i);
        cr_expect(strstr(error.text, value) && strstr(error.text, limit), "case %zu: %s", i, error.text);
        cr_expect(strstr(error.text, cases[i].field), "case %zu: %s", i, error.text);
    }
}

Test(frame, a_header_is_two_little_endian_words) {
    uint8_t header[8];
    const uint8_t expected[8] = {0x01, 0x02, 0x03, 0x04, 0xf1, 0xf2, 0xf3, 0xf4};
    gd_frame_write_header(header, 0x04030201, 0xf4f3f2f1);
    cr_expect_arr_eq(header, expected, sizeof(expected));
}

Test(frame, a_written_header_is_read_back) {
    const uint32_t sizes[] = {0, 1, 255, 256, 65535, 65536, 1 << 20};
    static uint8_t data[8 + (1 << 20)];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
            gd_frame_write_header(data, sizes[i], sizes[j]);
            struct gd_frame frame = parse(data, sizeof(data), GD_FRAME_COMPLETE);
            cr_expect_eq(frame.message_bytes, sizes[i]);
            cr_expect_eq(frame.payload_bytes, sizes[j]);
        }
}
