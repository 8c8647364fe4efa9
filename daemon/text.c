#include "text.h"

#include <stdint.h>
#include <string.h>

#include "gradientd/protocol.h"

// Decodes one code point; returns its bytes, 0 when it is not valid.
static size_t decode_code_point(const uint8_t *text, size_t bytes, uint32_t *ret_code_point) {
    static const struct {
        uint8_t mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

    for (size_t length = 1; length <= 4; length++) {
        if ((text[0] & forms[length - 1].mask) != forms[length - 1].lead)
            continue;
        if (length > bytes)
            return 0;
        uint32_t code_point = text[0] & (uint8_t)~forms[length - 1].mask;
        for (size_t i = 1; i < length; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            code_point = code_point << 6 | (text[i] & 0x3f);
        }
        bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
        if (code_point < forms[length - 1].least || code_point > 0x10ffff || surrogate)
            return 0;
        *ret_code_point = code_point;
        return length;
    }
    return 0;
}

size_t gd_text_clean_bytes(const char *text, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        uint32_t code_point;
        if (text[at] >= 0x20 && text[at] < 0x7f) { // most of what there is
            at++;
            continue;
        }
        size_t length = decode_code_point((const uint8_t *)text + at, bytes - at, &code_point);
        if (length == 0 || code_point < 0x20 || (code_point >= 0x7f && code_point <= 0x9f))
            break;
        at += length;
    }
    return at;
}

bool gd_text_is_clean(const char *text, size_t bytes) {
    return gd_text_clean_bytes(text, bytes) == bytes;
}

bool gd_text_is_name(const char *text) {
    size_t bytes = strlen(text);
    return bytes >= 1 && bytes <= GRADIENTD_NAME_BYTES_MAX && gd_text_is_clean(text, bytes);
}

static bool is_run_component(const char *component, size_t bytes) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._=,+-";
    if (bytes == 0 || bytes > GRADIENTD_NAME_BYTES_MAX || strspn(component, allowed) < bytes)
        return false;
    return !(component[0] == '.' && (bytes == 1 || (bytes == 2 && component[1] == '.')));
}

bool gd_text_is_run(const char *text) {
    if (*text == '\0')
        return true;
    if (strlen(text) > GRADIENTD_RUN_BYTES_MAX)
        return false;
    for (;;) {
        size_t bytes = strcspn(text, "/");
        if (!is_run_component(text, bytes))
            return false;
        if (text[bytes] == '\0')
            return true;
        text += bytes + 1;
    }
}

void gd_text_copy_printable(char *destination, size_t size, const char *source) {
    size_t at = 0;
    for (; at + 1 < size && source[at]; at++)
        destination[at] = source[at] >= 0x20 && source[at] < 0x7f ? source[at] : '?';
    destination[at] = '\0';
}
