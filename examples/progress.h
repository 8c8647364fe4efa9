// What an example shows while it works: one line that renews itself at a terminal, else a line every tenth of the way.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
    int64_t steps; // of the whole run
    bool terminal;
};

// Looks at where stdout goes.
void progress_init(struct progress *progress, int64_t steps);

// Whether a line is due after step `step`, which counts from 1.
bool progress_due(const struct progress *progress, int64_t step);

// Shows the line: the step, then `format` like printf().
__attribute__((format(printf, 3, 4))) void progress_show(const struct progress *progress, int64_t step,
                                                         const char *format, ...);
