#include "report.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void bench_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("gradientd-bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

struct bench_report {
    bool json;
    size_t rows;
};

struct bench_report *bench_report_new(bool json) {
    struct bench_report *report = calloc(1, sizeof(*report));
    if (!report)
        abort();
    report->json = json;
    if (!json)
        printf("%-58s %10s  %-21s %10s  %s\n", "", "median", "quartiles", "goal", "unit");
    return report;
}

static void print_json(const struct bench_report *report, const char *name, const struct bench_series *series,
                       const char *unit, struct bench_goal goal) {
    printf("%s\n  {\"name\": \"%s\", \"value\": %.6g, \"goal\": ", report->rows ? "," : "[", name,
           bench_series_quantile(series, 0.5));
    printf(isnan(goal.value) ? "null" : "%.6g", goal.value);
    printf(", \"unit\": \"%s\", \"better\": \"%s\", \"low\": %.6g, \"high\": %.6g, \"repetitions\": %zu}", unit,
           goal.higher ? "higher" : "lower", bench_series_quantile(series, 0.25), bench_series_quantile(series, 0.75),
           series->n);
}

static void print_line(const char *name, const struct bench_series *series, const char *unit, struct bench_goal goal) {
    char spread[32] = "", goal_text[16] = "";
    double value = bench_series_quantile(series, 0.5);
    if (series->n > 1)
        snprintf(spread, sizeof(spread), "%.4g .. %.4g", bench_series_quantile(series, 0.25),
                 bench_series_quantile(series, 0.75));
    if (!isnan(goal.value))
        snprintf(goal_text, sizeof(goal_text), "%s%.4g", goal.higher ? ">= " : "<= ", goal.value);
    bool missed = goal.higher ? value < goal.value : value > goal.value;
    printf("%-58s %10.4g  %-21s %10s  %s%s\n", name, value, spread, goal_text, unit, missed ? "  *" : "");
}

void bench_report_row(struct bench_report *report, const char *name, const struct bench_series *series,
                      const char *unit, struct bench_goal goal) {
    if (report->json)
        print_json(report, name, series, unit, goal);
    else
        print_line(name, series, unit, goal);
    fflush(stdout);
    report->rows++;
}

void bench_report_value(struct bench_report *report, const char *name, double value, const char *unit,
                        struct bench_goal goal) {
    struct bench_series series = {.value = {value}, .n = 1};
    bench_report_row(report, name, &series, unit, goal);
}

void bench_report_end(struct bench_report *report) {
    if (report->json)
        printf("%s]\n", report->rows ? "\n" : "[");
    else
        printf("\n* goal not reached\n");
    free(report);
}
