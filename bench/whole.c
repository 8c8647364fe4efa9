// A large step with all that is shown of it, against the pass over its elements that the first two families, coherence
// and Adam's ratios, need: what noise, subspace, rules, health, histograms and the records add.
#include <string.h>
#include <time.h>

#include "bench.h"
#include "passes.h"
#include "sidecar.h"

enum {
    LAGS = 5,
    AT_ONCE = 4,  // steps that wait in slots, so that the trainer's copies and the daemon's work are apart
    WARM_UP = 64, // steps until histograms and images are as rare as in a run
};

static const double BATCH_SIZE = 512.0;

static double thread_cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// Steps `first` to `first` + n - 1, each with what the noise family needs. Daemon CPU seconds a step.
static double take_steps(const struct bench_daemon *daemon, struct gradientd_run *run, const struct bench_model *model,
                         int64_t first, int64_t n) {
    static const double rate = 1e-3;
    const struct gradientd_squared_norm smaller = {.batch_size = BATCH_SIZE / 16, .value = 1e3};
    double before = bench_cpu_seconds(daemon->pid);
    bench_daemon_freeze(daemon);
    for (int64_t step = first; step < first + n; step++) {
        struct gradientd_step description = {.step = step, .learning_rates = &rate, .batch_size = BATCH_SIZE};
        description.squared_norms = &smaller;
        description.n_squared_norms = 1;
        if (gradientd_submit(run, &description, model->gradients) != GRADIENTD_OK)
            bench_fail("a step was not taken: %s", gradientd_last_error(run));
    }
    bench_daemon_thaw(daemon);
    bench_daemon_wait_idle(daemon);
    return (bench_cpu_seconds(daemon->pid) - before) / (double)n;
}

static double take_pass(struct bench_pass *pass) {
    double before = thread_cpu_seconds();
    bench_run_pass(pass);
    return thread_cpu_seconds() - before;
}

void bench_whole(const struct bench_settings *settings, struct bench_report *report) {
    uint64_t elements = settings->quick ? settings->elements / 5 : settings->elements;
    struct bench_series whole = {.n = 0}, pass_alone = {.n = 0};
    struct bench_pass pass = {.lags = LAGS, .state = true, .threads = 1};
    struct bench_memory memory;
    struct bench_daemon daemon;
    struct bench_model model;

    if (gd_kernels_select(NULL, &pass.kernels) < 0)
        bench_fail("there is no kernel");
    bench_memory_init(&memory, elements, GD_F32, LAGS);
    pass.memory = &memory;
    bench_model_init(&model, elements, 1, sizeof(float));
    bench_daemon_start(&daemon, settings);
    struct gradientd_options options = bench_options(&model, &daemon, "whole");
    options.inflight = AT_ONCE;
    struct gradientd_run *run = bench_open(&options);
    int64_t step = 1;
    for (; step <= WARM_UP; step += AT_ONCE)
        take_steps(&daemon, run, &model, step, AT_ONCE);
    take_pass(&pass);
    for (size_t i = 0; i < settings->repetitions; i++, step += AT_ONCE) {
        bench_series_add(&whole, take_steps(&daemon, run, &model, step, AT_ONCE));
        bench_series_add(&pass_alone, take_pass(&pass));
    }
    bench_close(run);
    bench_daemon_stop(&daemon);
    bench_model_deinit(&model);
    bench_memory_deinit(&memory);
    struct bench_series ratio = bench_series_ratio(&whole, &pass_alone);
    bench_report_row(report, "a step with all families", &ratio, "x the pass of the first two", BENCH_AT_MOST(1.10));
}
