// How the cost grows: with elements, with groups, with runs; and that memory does not grow with steps.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "sidecar.h"

enum { WARM_UP = 16 }; // steps until every slot has been used

// Daemon CPU nanoseconds a step of a run with that model, beside its trainer.
static double step_cost_ns(const struct bench_settings *settings, uint64_t elements, uint32_t n_groups, int64_t steps) {
    struct bench_daemon daemon;
    struct bench_model model;

    bench_daemon_start(&daemon, settings);
    bench_model_init(&model, elements, n_groups, sizeof(float));
    struct gradientd_options options = bench_options(&model, &daemon, "run");
    struct gradientd_run *run = bench_open(&options);
    for (int64_t step = 1; step <= WARM_UP; step++)
        bench_submit(run, &model, step);
    bench_daemon_wait_idle(&daemon);
    double before = bench_cpu_seconds(daemon.pid);
    for (int64_t step = 1; step <= steps; step++)
        bench_submit(run, &model, WARM_UP + step);
    bench_daemon_wait_idle(&daemon);
    double cost = (bench_cpu_seconds(daemon.pid) - before) / (double)steps;
    bench_close(run);
    bench_daemon_stop(&daemon);
    bench_model_deinit(&model);
    return cost * 1e9;
}

static void scale_elements(const struct bench_settings *settings, struct bench_report *report) {
    static const uint64_t elements[] = {10000, 100000, 1000000, 10000000, 25000000, 100000000, 250000000};
    uint64_t most = settings->quick ? 10000000 : 250000000;
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < sizeof(elements) / sizeof(elements[0]) && elements[i] <= most; i++) {
        char name[64];
        uint64_t bytes = elements[i] * sizeof(float) * (8 + 2 + 1); // slots, state, the trainer's own
        if (bytes > memory / 10 * 7) {
            fprintf(stderr, "left out: %llu elements would take %.1f GB\n", (unsigned long long)elements[i],
                    (double)bytes * 1e-9);
            continue;
        }
        int64_t steps = elements[i] < 1000000 ? 1000 : elements[i] < 50000000 ? 20 : 5;
        double cost = step_cost_ns(settings, elements[i], elements[i] < 1000000 ? 4 : 100, steps);
        snprintf(name, sizeof(name), "elements %.3g", (double)elements[i]);
        bench_report_value(report, name, cost / (double)elements[i], "daemon CPU ns an element", BENCH_LESS);
    }
}

static void scale_groups(const struct bench_settings *settings, struct bench_report *report) {
    static const uint32_t groups[] = {1, 10, 100, 1000, 10000};
    const uint64_t elements = 1000000;
    double one = 0.0;

    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        char name[64];
        double cost = step_cost_ns(settings, elements, groups[i], settings->quick ? 20 : 100);
        if (i == 0)
            one = cost;
        snprintf(name, sizeof(name), "groups %u, 1e6 elements in all", groups[i]);
        bench_report_value(report, name, cost / one, "x the CPU of one group", BENCH_LESS);
    }
}

// Snapshots of small runs that take turns; what a run costs is the same however many there are.
static void scale_runs(const struct bench_settings *settings, struct bench_report *report) {
    static const uint32_t counts[] = {1, 4, 16, 64, 256};
    enum { ELEMENTS = 1000, RUNS_MAX = 256 };
    int64_t snapshots = settings->quick ? 20000 : 200000;
    double one = 0.0;

    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        struct gradientd_run *runs[RUNS_MAX];
        struct bench_daemon daemon;
        struct bench_model model;
        char name[64];

        bench_daemon_start(&daemon, settings);
        bench_model_init(&model, ELEMENTS, 1, sizeof(float));
        for (uint32_t i = 0; i < counts[c]; i++) {
            snprintf(name, sizeof(name), "run%u", i);
            struct gradientd_options options = bench_options(&model, &daemon, name);
            runs[i] = bench_open(&options);
        }
        for (int64_t step = 1; step <= WARM_UP; step++)
            for (uint32_t i = 0; i < counts[c]; i++)
                bench_submit(runs[i], &model, step);
        bench_daemon_wait_idle(&daemon);
        double before = bench_cpu_seconds(daemon.pid);
        int64_t steps = snapshots / counts[c], taken = steps * counts[c];
        for (int64_t step = 1; step <= steps; step++)
            for (uint32_t i = 0; i < counts[c]; i++)
                bench_submit(runs[i], &model, WARM_UP + step);
        bench_daemon_wait_idle(&daemon);
        double cost = (bench_cpu_seconds(daemon.pid) - before) / (double)taken;
        if (c == 0)
            one = cost;
        snprintf(name, sizeof(name), "runs %u of 1,000 elements", counts[c]);
        bench_report_value(report, name, cost / one, "x the CPU a snapshot of one run", BENCH_LESS);
        for (uint32_t i = 0; i < counts[c]; i++)
            bench_close(runs[i]);
        bench_daemon_stop(&daemon);
        bench_model_deinit(&model);
    }
}

// The daemon's own memory after a tenth of the steps and after all of them.
static void scale_steps(const struct bench_settings *settings, struct bench_report *report) {
    int64_t steps = settings->quick ? 100000 : 1000000;
    struct bench_daemon daemon;
    struct bench_model model;
    double early = 0.0;
    char name[64];

    bench_daemon_start(&daemon, settings);
    bench_model_init(&model, 100, 1, sizeof(float));
    struct gradientd_options options = bench_options(&model, &daemon, "run");
    options.inflight = 64;
    struct gradientd_run *run = bench_open(&options);
    for (int64_t step = 1; step <= steps; step++) {
        bench_submit(run, &model, step);
        if (step == steps / 10)
            early = bench_private_kib(daemon.pid);
    }
    double late = bench_private_kib(daemon.pid);
    bench_close(run);
    bench_daemon_stop(&daemon);
    bench_model_deinit(&model);
    snprintf(name, sizeof(name), "daemon memory, growth from %.0e to %.0e steps", (double)steps / 10, (double)steps);
    bench_report_value(report, name, late - early, "KiB", BENCH_AT_MOST(64));
}

void bench_scaling(const struct bench_settings *settings, struct bench_report *report) {
    scale_elements(settings, report);
    scale_groups(settings, report);
    scale_runs(settings, report);
    scale_steps(settings, report);
}
