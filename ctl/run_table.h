// The runs of a daemon as a table, and the daemon in a few lines above it: what `status` and `top` show.
#pragma once

#include <stdio.h>

#include "daemon_report.h"
#include "terminal.h"

enum gd_run_order {
    GD_ORDER_NUMBER, // as they came
    GD_ORDER_RATE,   // the fastest first, as with the others
    GD_ORDER_WRITTEN,
    GD_ORDER_MEMORY,
    GD_ORDER_NAME,
};

void gd_run_table_sort(struct gd_daemon_watch *watch, enum gd_run_order order);

// Writes what the daemon says of itself: lines that are cut to a terminal's `columns` (SIZE_MAX: whole).
// Returns how many lines, or -ENOMEM.
__attribute__((warn_unused_result)) int gd_daemon_lines_write(const struct gd_daemon_watch *watch, FILE *out,
                                                              size_t columns);

// Writes a line a run, `rows_max` of them at most, and the titles. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_run_table_write(const struct gd_daemon_watch *watch, FILE *out,
                                                           const struct gd_terminal *terminal, size_t rows_max);

// Prints everything as one JSON object on a line of standard output. `run`: only runs of that name; NULL: all.
void gd_daemon_report_print_json(const struct gd_daemon_watch *watch, const char *run);
