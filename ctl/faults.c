#include "faults.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "json.h"

enum { WHAT_BYTES = 512 };

void gd_faults_add(struct gd_faults *faults, uint64_t offset, const char *format, ...) {
    if (faults->n++ >= GD_FAULTS_SHOWN_MAX)
        return;

    char what[WHAT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);

    if (!faults->json) {
        printf("%s: offset %" PRIu64 ": %s\n", faults->path, offset, what);
        return;
    }
    printf("%s{\"offset\":%" PRIu64 ",\"what\":", faults->n > 1 ? "," : "", offset);
    gd_json_print_text(what);
    putchar('}');
}
