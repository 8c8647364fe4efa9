#include "printable.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "text.h"

static const char REST[] = "...";

enum { REST_COLUMNS = sizeof(REST) - 1 };

static bool is_continuation(char byte) {
    return ((uint8_t)byte & 0xc0) == 0x80;
}

static size_t character_bytes(const char *text) {
    size_t bytes = 1;
    while (is_continuation(text[bytes]))
        bytes++;
    return bytes;
}

// The code point of a valid character of three bytes; 0 for others.
static unsigned code_point_of_three(const char *text, size_t bytes) {
    const uint8_t *byte = (const uint8_t *)text;
    return bytes == 3 ? (byte[0] & 0x0fU) << 12 | (byte[1] & 0x3fU) << 6 | (byte[2] & 0x3fU) : 0;
}

// Marks, embeddings, overrides and isolates of bidirectional text (Unicode, annex 9): what follows them on the line
// would be shown elsewhere.
static bool turns_direction(unsigned code_point) {
    return code_point == 0x200e || code_point == 0x200f || (code_point >= 0x2028 && code_point <= 0x202e) ||
           (code_point >= 0x2066 && code_point <= 0x2069);
}

// Writes clean text, character by character.
static void write_clean(FILE *out, const char *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        size_t length = character_bytes(text + at);
        unsigned code_point = code_point_of_three(text + at, length);
        if (turns_direction(code_point))
            fprintf(out, "\\u%04x", code_point);
        else
            fwrite(text + at, 1, length, out);
        at += length;
    }
}

void gd_printable_write(FILE *out, const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        size_t bytes = gd_text_clean_bytes(text, left);
        write_clean(out, text, bytes);
        if (bytes < left)
            fprintf(out, "\\x%02x", (uint8_t)text[bytes++]);
        text += bytes;
        left -= bytes;
    }
}

size_t gd_printable_columns(const char *text) {
    size_t columns = 0;
    for (; *text; text++)
        columns += !is_continuation(*text);
    return columns;
}

// Writes so many characters.
static void write_first(FILE *out, const char *text, size_t columns) {
    for (; columns > 0 && *text; columns--) {
        size_t bytes = character_bytes(text);
        fwrite(text, 1, bytes, out);
        text += bytes;
    }
}

size_t gd_printable_write_cut(FILE *out, const char *text, size_t columns) {
    size_t needed = gd_printable_columns(text);
    if (needed <= columns) {
        fputs(text, out);
        return needed;
    }
    size_t rest = columns > REST_COLUMNS ? REST_COLUMNS : 0;
    write_first(out, text, columns - rest);
    fwrite(REST, 1, rest, out);
    return columns;
}
