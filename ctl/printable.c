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

// Of the first character of `bytes` valid bytes.
static size_t character_bytes(const char *text, size_t bytes) {
    size_t length = 1;
    while (length < bytes && is_continuation(text[length]))
        length++;
    return length;
}

// Marks, embeddings, overrides and isolates of bidirectional text (Unicode, annex 9), and the ends of lines and
// paragraphs: what follows them would be shown elsewhere.
unsigned gd_printable_direction(const char *text, size_t bytes) {
    const uint8_t *byte = (const uint8_t *)text;
    if (bytes < 3 || byte[0] != 0xe2)
        return 0;
    unsigned code_point = (byte[0] & 0x0fU) << 12 | (byte[1] & 0x3fU) << 6 | (byte[2] & 0x3fU);
    bool turns = code_point == 0x200e || code_point == 0x200f || (code_point >= 0x2028 && code_point <= 0x202e) ||
                 (code_point >= 0x2066 && code_point <= 0x2069);
    return turns ? code_point : 0;
}

// Writes clean text, character by character.
static void write_clean(FILE *out, const char *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        size_t length = character_bytes(text + at, bytes - at);
        unsigned code_point = gd_printable_direction(text + at, length);
        if (code_point > 0)
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
    size_t left = strlen(text);
    for (; columns > 0 && left > 0; columns--) {
        size_t bytes = character_bytes(text, left);
        fwrite(text, 1, bytes, out);
        text += bytes;
        left -= bytes;
    }
}

void gd_printable_write_cut(FILE *out, const char *text, size_t columns) {
    if (gd_printable_columns(text) <= columns) {
        fputs(text, out);
        return;
    }
    size_t rest = columns > REST_COLUMNS ? REST_COLUMNS : 0;
    write_first(out, text, columns - rest);
    fwrite(REST, 1, rest, out);
}
