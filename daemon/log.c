#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOG_LINE_BYTES = 1024 };

static _Atomic enum gd_log_level least_important = GD_LOG_INFO;

void gd_log_set_level(enum gd_log_level level) {
    atomic_store(&least_important, level);
}

void gd_log(enum gd_log_level level, const char *format, ...) {
    char line[LOG_LINE_BYTES];
    va_list arguments;

    if (level > atomic_load(&least_important))
        return;
    int prefix = getenv("JOURNAL_STREAM") ? snprintf(line, sizeof(line), "<%d>", (int)level)
                                          : snprintf(line, sizeof(line), "gradientd: ");
    size_t used = (size_t)prefix;
    va_start(arguments, format);
    int wanted = vsnprintf(line + used, sizeof(line) - 1 - used, format, arguments);
    va_end(arguments);
    if (wanted < 0)
        return;
    size_t room = sizeof(line) - 2 - used;
    size_t end = used + ((size_t)wanted < room ? (size_t)wanted : room);

    for (size_t i = used; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[end] = '\n';
    // one write per line: lines of two threads do not mix; a full or closed stderr must not stop the daemon
    if (write(STDERR_FILENO, line, end + 1) < 0)
        return;
}
