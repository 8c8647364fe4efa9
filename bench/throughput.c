// How many snapshots of a small model a second reach the event file.
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "sidecar.h"

enum { SMALL_ELEMS = 10000, GROUPS = 4, RUNS_MAX = 256 };

// Trains `n_runs` runs in turn for `steps` steps each. Returns snapshots a second, to the last byte of the last file.
static double train_runs(const struct bench_daemon *daemon, const struct bench_model *model, uint32_t n_runs,
                         int64_t steps) {
    struct gradientd_run *runs[RUNS_MAX];
    for (uint32_t i = 0; i < n_runs; i++) {
        char name[16];
        snprintf(name, sizeof(name), "run%u", i);
        struct gradientd_options options = bench_options(model, daemon, name);
        options.inflight = 64;
        runs[i] = bench_open(&options);
    }
    double start = bench_now();
    for (int64_t step = 1; step <= steps; step++)
        for (uint32_t i = 0; i < n_runs; i++)
            bench_submit(runs[i], model, step);
    for (uint32_t i = 0; i < n_runs; i++)
        gradientd_close(runs[i], GRADIENTD_SUCCESS);
    return (double)(n_runs * steps) / (bench_now() - start);
}

void bench_throughput(const struct bench_settings *settings, struct bench_report *report) {
    static const struct {
        uint32_t runs;
        struct bench_goal goal;
        const char *name;
    } cases[] = {
        {1, {100000, true}, "snapshots, 10,000 elements, 1 run"},
        {64, {0, true}, "snapshots, 10,000 elements, 64 runs"},
    };
    struct bench_daemon daemon;
    struct bench_model model;
    int64_t snapshots = settings->quick ? 50000 : 200000;

    bench_model_init(&model, SMALL_ELEMS, GROUPS, sizeof(float));
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct bench_series series = {.n = 0};
        bench_daemon_start(&daemon, settings);
        for (size_t i = 0; i < (settings->quick ? 3 : settings->repetitions); i++)
            bench_series_add(&series, train_runs(&daemon, &model, cases[c].runs, snapshots / cases[c].runs));
        double cpu = bench_cpu_seconds(daemon.pid);
        fprintf(stderr, "daemon cpu us per snapshot %.2f\n", cpu / (double)snapshots / (double)series.n * 1e6);
        bench_daemon_stop(&daemon);
        bench_report_row(report, cases[c].name, &series, "1/s", cases[c].goal);
    }
    bench_model_deinit(&model);
}
