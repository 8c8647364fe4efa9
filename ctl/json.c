#include "json.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "printable.h"
#include "text.h"

// U+0080 to U+009F: valid UTF-8 that gd_text_clean_bytes() stops at.
static bool is_long_control(const uint8_t *text) {
    return text[0] == 0xc2 && text[1] >= 0x80 && text[1] <= 0x9f;
}

// Prints the character that is not clean, and returns its bytes.
static size_t print_unclean(const uint8_t *text) {
    bool is_long = is_long_control(text);
    unsigned code_point = is_long ? text[1] : text[0];
    printf("\\u%04x", is_long || code_point < 0x80 ? code_point : 0xfffd);
    return is_long ? 2 : 1;
}

static void print_clean(const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        unsigned direction = gd_printable_direction(text + i, bytes - i);
        if (direction > 0) {
            printf("\\u%04x", direction);
            i += 2; // of its three bytes
            continue;
        }
        if (text[i] == '"' || text[i] == '\\')
            putchar('\\');
        putchar(text[i]);
    }
}

void gd_json_print_text(const char *text) {
    size_t left = strlen(text);
    putchar('"');
    while (left > 0) {
        size_t bytes = gd_text_clean_bytes(text, left);
        print_clean(text, bytes);
        if (bytes < left)
            bytes += print_unclean((const uint8_t *)text + bytes);
        text += bytes;
        left -= bytes;
    }
    putchar('"');
}

void gd_json_print_number(double value, int digits) {
    if (isnan(value))
        fputs("\"NaN\"", stdout);
    else if (isinf(value))
        fputs(value > 0 ? "\"Infinity\"" : "\"-Infinity\"", stdout);
    else
        printf("%.*g", digits, value);
}
