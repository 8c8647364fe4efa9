#include "progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum {
    TERMINAL_LINES = 200,
    FILE_LINES = 10,
};

void progress_init(struct progress *progress, int64_t steps) {
    *progress = (struct progress){.steps = steps, .terminal = isatty(STDOUT_FILENO) == 1};
}

bool progress_due(const struct progress *progress, int64_t step) {
    int64_t lines = progress->terminal ? TERMINAL_LINES : FILE_LINES;
    int64_t interval = progress->steps > lines ? progress->steps / lines : 1;
    return step % interval == 0 || step == progress->steps;
}

void progress_show(const struct progress *progress, int64_t step, const char *format, ...) {
    if (progress->terminal)
        fputs("\r\033[K", stdout); // to the start of the line, and clear it

    printf("step %" PRId64 "/%" PRId64 "  ", step, progress->steps);
    va_list values;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);

    if (!progress->terminal || step == progress->steps)
        putchar('\n');
    fflush(stdout);
}
