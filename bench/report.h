// What the benchmark says: one row a quantity, as a table for people or a JSON array for programs.
#pragma once

#include <math.h>
#include <stdbool.h>

#include "measure.h"

struct bench_report; // rows, in the order they were added

struct bench_goal {
    double value; // NAN: none is set
    bool higher;  // more is better
};

#define BENCH_AT_MOST(x) ((struct bench_goal){(x), false})
#define BENCH_AT_LEAST(x) ((struct bench_goal){(x), true})
#define BENCH_LESS ((struct bench_goal){(double)NAN, false})
#define BENCH_MORE ((struct bench_goal){(double)NAN, true})

struct bench_report *bench_report_new(bool json);

// The median of `series`, with the quartiles as its spread. In a table the row is printed at once.
void bench_report_row(struct bench_report *report, const char *name, const struct bench_series *series,
                      const char *unit, struct bench_goal goal);

// One value without spread.
void bench_report_value(struct bench_report *report, const char *name, double value, const char *unit,
                        struct bench_goal goal);

// Ends the output and frees the report.
void bench_report_end(struct bench_report *report);

// Ends the program with a message.
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
