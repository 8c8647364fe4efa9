#include "service_text.h"

#include <inttypes.h>
#include <stdio.h>

enum { NUMBER_BYTES = 32 }; // of 20 digits, 6 commas and the terminating 0, 27

// In groups of three digits.
static void format_number(uint64_t number, char ret_text[static NUMBER_BYTES]) {
    char reversed[NUMBER_BYTES];
    int bytes = 0;
    for (int digits = 0; number > 0 || digits == 0; digits++, number /= 10) {
        if (digits > 0 && digits % 3 == 0)
            reversed[bytes++] = ',';
        reversed[bytes++] = (char)('0' + number % 10);
    }
    for (int i = 0; i < bytes; i++)
        ret_text[i] = reversed[bytes - 1 - i];
    ret_text[bytes] = '\0';
}

void gd_service_format(bool stopping, uint32_t runs, uint64_t steps, char ret_text[static GD_SERVICE_TEXT_BYTES]) {
    char number[NUMBER_BYTES];
    format_number(steps, number);
    snprintf(ret_text, GD_SERVICE_TEXT_BYTES, "%s %" PRIu32 " %s, %s %s", stopping ? "Finishing" : "Serving", runs,
             runs == 1 ? "run" : "runs", number, steps == 1 ? "step" : "steps");
}
