// How many scalars a second get from a trainer into a finished event file.
#include <stdio.h>
#include <time.h>

#include "bench.h"
#include "sidecar.h"

enum { TAGS = 1000 };

static double write_scalars(const struct bench_daemon *daemon, const struct bench_model *model, int64_t steps) {
    static char names[TAGS][32];
    static struct gradientd_scalar scalars[TAGS];
    struct gradientd_options options = bench_options(model, daemon, "scalars");
    struct gradientd_run *run = bench_open(&options);

    for (int i = 0; i < TAGS; i++) {
        snprintf(names[i], sizeof(names[i]), "layer%03d/some_statistic", i);
        scalars[i] = (struct gradientd_scalar){.tag = names[i], .value = (float)i};
    }
    double start = bench_now();
    int64_t taken = 0;
    for (int64_t step = 1; taken < steps; step++) {
        int result = gradientd_scalars(run, step, 1.7e9, scalars, TAGS);
        taken += result == GRADIENTD_OK;
        if (result == GRADIENTD_SKIPPED) // the daemon is behind, and the client holds as much as it may
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        else if (result != GRADIENTD_OK)
            bench_fail("scalars were not taken: %s", gradientd_last_error(run));
    }
    bench_close(run);
    return (double)(steps * TAGS) / (bench_now() - start);
}

double bench_scalars_a_second(const struct bench_settings *settings, int64_t steps) {
    struct bench_daemon daemon;
    struct bench_model model;

    bench_model_init(&model, 16, 1, sizeof(float));
    bench_daemon_start(&daemon, settings);
    double rate = write_scalars(&daemon, &model, steps);
    bench_daemon_stop(&daemon);
    bench_model_deinit(&model);
    return rate;
}

void bench_scalars(const struct bench_settings *settings, struct bench_report *report) {
    struct bench_series rate = {.n = 0};
    for (size_t i = 0; i < settings->repetitions; i++)
        bench_series_add(&rate, bench_scalars_a_second(settings, 1000));
    bench_report_row(report, "scalars from trainer to file, 1,000 tags", &rate, "1/s", BENCH_MORE);
}
