#include "metrics_text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { NS_PER_SECOND = 1000000000 };

__attribute__((format(printf, 2, 3))) static void add(struct gd_metrics_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(text->text + text->bytes, GD_METRICS_BYTES_MAX - text->bytes, format, arguments);
    va_end(arguments);
    assert(bytes >= 0 && text->bytes + (size_t)bytes < GD_METRICS_BYTES_MAX);
    text->bytes += (size_t)bytes;
}

// What comes before a family's values. `unit` NULL: it has none.
static void describe(struct gd_metrics_text *text, const char *name, const char *type, const char *unit,
                     const char *help) {
    add(text, "# HELP gradientd_%s %s\n# TYPE gradientd_%s %s\n", name, help, name, type);
    if (unit)
        add(text, "# UNIT gradientd_%s %s\n", name, unit);
}

static void add_counter(struct gd_metrics_text *text, const char *name, const char *unit, const char *help,
                        uint64_t value) {
    describe(text, name, "counter", unit, help);
    add(text, "gradientd_%s_total %" PRIu64 "\n", name, value);
}

static void add_gauge(struct gd_metrics_text *text, const char *name, const char *unit, const char *help,
                      uint64_t value) {
    describe(text, name, "gauge", unit, help);
    add(text, "gradientd_%s %" PRIu64 "\n", name, value);
}

static void add_refusals(struct gd_metrics_text *text, const struct gd_counters *counters) {
    describe(text, "refused", "counter", NULL, "Clients that were refused, by the code of the Error that they got.");
    for (int code = 1; code < GD_ERROR_CODES; code++)
        add(text, "gradientd_refused_total{code=\"%s\"} %" PRIu64 "\n", gd_error_code_name((enum gd_error_code)code),
            counters->refused[code]);
}

static void add_work(struct gd_metrics_text *text, const struct gd_daemon_status *status) {
    const struct gd_counters *counters = &status->counters;
    add_counter(text, "snapshots", NULL, "Steps that were analysed and committed.", counters->snapshots);
    add_counter(text, "skipped_steps", NULL, "Steps that trainers skipped rather than wait.", counters->skipped);
    add_counter(text, "element_bytes", "bytes", "Elements of the snapshots, of all streams.", counters->element_bytes);
    add_gauge(text, "queued_submissions", NULL, "Submissions that are received and not committed yet.", status->queued);
    describe(text, "analysis_seconds", "counter", "seconds", "Time that threads spent to analyse and commit.");
    add(text, "gradientd_analysis_seconds_total %" PRIu64 ".%09" PRIu64 "\n", counters->analysis_ns / NS_PER_SECOND,
        counters->analysis_ns % NS_PER_SECOND);
    add_counter(text, "event_bytes", "bytes", "Bytes written to event files.", status->event_bytes);
    add_counter(text, "write_errors", NULL, "Failed tries to write to an event file, or to create one.",
                status->write_errors);
    add_counter(text, "alerts", NULL, "Alerts of all runs.", status->alerts);
}

static void add_clients(struct gd_metrics_text *text, const struct gd_daemon_status *status) {
    const struct gd_counters *counters = &status->counters;
    add_gauge(text, "connections", NULL, "Connections that are open.", status->connections);
    add_counter(text, "connections_accepted", NULL, "Connections that were accepted, with those refused at once.",
                counters->connections);
    add_gauge(text, "runs", NULL, "Runs that are attached or being finished.", status->runs);
    add_counter(text, "runs_attached", NULL, "Attachments of runs.", counters->runs);
    add_refusals(text, counters);
}

void gd_metrics_format(const struct gd_daemon_status *status, struct gd_metrics_text *ret_text) {
    ret_text->bytes = 0;
    describe(ret_text, "build_info", "gauge", NULL, "What runs, always 1.");
    add(ret_text, "gradientd_build_info{version=\"%s\",kernels=\"%s\"} 1\n", GD_VERSION, status->kernels);
    describe(ret_text, "start_time_seconds", "gauge", "seconds", "When the daemon started, since the epoch.");
    add(ret_text, "gradientd_start_time_seconds %.3f\n", status->started);
    add_gauge(ret_text, "resident_memory_bytes", "bytes", "Memory of the process, with what it shares with trainers.",
              status->resident_bytes);
    add_gauge(ret_text, "workers", NULL, "Threads that analyse.", status->workers);
    add_work(ret_text, status);
    add_clients(ret_text, status);
    add_counter(ret_text, "metrics_skipped_writes", NULL,
                "Times that this file was not written because the write before had not ended.",
                status->counters.metrics_skipped);
    add(ret_text, "# EOF\n");
}
