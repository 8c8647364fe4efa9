// The metrics as text: each number under its name, and nothing twice. Parsers of others read it in
// tests/interop/test_metrics.py.
#include "metrics_text.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct gd_metrics_text metrics;

static void expect_line(const char *line) {
    char framed[256];
    snprintf(framed, sizeof(framed), "\n%s\n", line);
    const char *found = strstr(metrics.text, framed);
    cr_expect(found, "%s", line);
    cr_expect(!found || !strstr(found + 1, framed), "%s: twice", line);
}

static const struct gd_daemon_status some = {
    .started = 1700000000.25,
    .workers = 3,
    .kernels = "avx2",
    .runs = 4,
    .connections = 5,
    .queued = 6,
    .resident_bytes = 7,
    .event_bytes = 8,
    .write_errors = 9,
    .alerts = 10,
    .counters = {.connections = 11,
                 .runs = 12,
                 .snapshots = 13,
                 .skipped = 14,
                 .element_bytes = 15,
                 .analysis_ns = 16000000017,
                 .refused = {[GD_ERROR_PROTOCOL] = 18, [GD_ERROR_FORBIDDEN] = 19},
                 .metrics_skipped = 20},
};

Test(metrics_text, has_each_number_under_its_name) {
    static const char *const lines[] = {
        "gradientd_build_info{version=\"" GD_VERSION "\",kernels=\"avx2\"} 1",
        "gradientd_start_time_seconds 1700000000.250",
        "gradientd_workers 3",
        "gradientd_runs 4",
        "gradientd_connections 5",
        "gradientd_queued_submissions 6",
        "gradientd_resident_memory_bytes 7",
        "gradientd_event_bytes_total 8",
        "gradientd_write_errors_total 9",
        "gradientd_alerts_total 10",
        "gradientd_connections_accepted_total 11",
        "gradientd_runs_attached_total 12",
        "gradientd_snapshots_total 13",
        "gradientd_skipped_steps_total 14",
        "gradientd_element_bytes_total 15",
        "gradientd_analysis_seconds_total 16.000000017",
        "gradientd_refused_total{code=\"protocol\"} 18",
        "gradientd_refused_total{code=\"invalid\"} 0",
        "gradientd_refused_total{code=\"unsupported\"} 0",
        "gradientd_refused_total{code=\"quota\"} 0",
        "gradientd_refused_total{code=\"owned\"} 0",
        "gradientd_refused_total{code=\"memory\"} 0",
        "gradientd_refused_total{code=\"internal\"} 0",
        "gradientd_refused_total{code=\"forbidden\"} 19",
        "gradientd_metrics_skipped_writes_total 20",
        "# TYPE gradientd_snapshots counter",
        "# UNIT gradientd_analysis_seconds seconds",
        "# EOF",
    };
    gd_metrics_format(&some, &metrics);
    cr_assert_eq(metrics.bytes, strlen(metrics.text));
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        expect_line(lines[i]);
    cr_expect_str_eq(metrics.text + metrics.bytes - strlen("\n# EOF\n"), "\n# EOF\n");
}

Test(metrics_text, fits_with_the_largest_numbers) {
    struct gd_daemon_status most;
    memset(&most, 0xff, sizeof(most));
    most.kernels = "avx512";
    most.started = 1e18;
    gd_metrics_format(&some, &metrics);
    size_t small = metrics.bytes;
    gd_metrics_format(&most, &metrics);
    cr_expect(metrics.bytes > small && metrics.bytes < GD_METRICS_BYTES_MAX * 3 / 4, "%zu", metrics.bytes);
    expect_line("gradientd_snapshots_total 18446744073709551615");
}
