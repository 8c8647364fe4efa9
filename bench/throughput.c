// How many snapshots of a small model a second reach the event file.
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "sidecar.h"

enum { SMALL_ELEMS = 10000, GROUPS = 4, RUNS_MAX = 256, INFLIGHT = 64 };

// Trains `n_runs` runs in turn for `steps` steps each. Returns snapshots a second, to the last byte of the last file.
static double train_runs(const struct bench_daemon *daemon, const struct bench_model *model, uint32_t n_runs,
                         uint32_t inflight, int64_t steps) {
    struct gradientd_run *runs[RUNS_MAX];
    for (uint32_t i = 0; i < n_runs; i++) {
        char name[16];
        snprintf(name, sizeof(name), "run%u", i);
        struct gradientd_options options = bench_options(model, daemon, name);
        options.inflight = inflight;
        runs[i] = bench_open(&options);
    }
    double start = bench_now();
    for (int64_t step = 1; step <= steps; step++)
        for (uint32_t i = 0; i < n_runs; i++)
            bench_submit(runs[i], model, step);
    for (uint32_t i = 0; i < n_runs; i++)
        bench_close(runs[i]);
    return (double)(n_runs * steps) / (bench_now() - start);
}

static void measure(const struct bench_settings *settings, struct bench_report *report, const char *name,
                    uint32_t n_runs, uint32_t inflight, struct bench_goal goal) {
    int64_t snapshots = settings->quick ? 50000 : 200000;
    struct bench_series series = {.n = 0};
    struct bench_daemon daemon;
    struct bench_model model;

    bench_model_init(&model, SMALL_ELEMS, GROUPS, sizeof(float));
    bench_daemon_start(&daemon, settings);
    train_runs(&daemon, &model, n_runs, inflight, snapshots / 10 / n_runs + 1); // unmeasured
    for (size_t i = 0; i < (settings->quick ? 3 : settings->repetitions); i++)
        bench_series_add(&series, train_runs(&daemon, &model, n_runs, inflight, snapshots / n_runs));
    bench_daemon_stop(&daemon);
    bench_model_deinit(&model);
    bench_report_row(report, name, &series, "1/s", goal);
}

void bench_throughput(const struct bench_settings *settings, struct bench_report *report) {
    measure(settings, report, "snapshots, 10,000 elements, 1 run", 1, INFLIGHT, BENCH_AT_LEAST(100000));
    measure(settings, report, "snapshots, 10,000 elements, 1 run, 2 in flight", 1, 2, BENCH_MORE);
    measure(settings, report, "snapshots, 10,000 elements, 64 runs", 64, INFLIGHT, BENCH_AT_LEAST(60000));
}
