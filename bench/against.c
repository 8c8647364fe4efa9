// The fused pass and the event files against what people use in the training process today, in the same run.
#include <stdlib.h>

#include "bench.h"
#include "passes.h"
#include "peers.h"
#include "sidecar.h"

enum { LAGS = 8, SCALAR_TAGS = 1000 };

static double time_pass(struct bench_pass *pass) {
    double start = bench_now();
    bench_run_pass(pass);
    return bench_now() - start;
}

static void against_torch(const struct bench_settings *settings, struct bench_report *report, struct bench_peers *peers,
                          struct bench_pass *pass) {
    static const struct {
        const char *name;
        uint32_t tensor_elements, lags;
        double goal;
    } rows[] = {
        {"tuned PyTorch, everything, 1 lag / fused pass, tensors of 1 MB", 250000, 1, 20},
        {"tuned PyTorch, everything, 8 lags / fused pass, tensors of 1 MB", 250000, LAGS, 10},
        {"tuned PyTorch, everything, 1 lag / fused pass, tensors of 10 MB", 2500000, 1, 20},
        {"tuned PyTorch, everything, 8 lags / fused pass, tensors of 10 MB", 2500000, LAGS, 10},
    };
    pass->state = true;
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct bench_series ratio = {.n = 0};
        pass->lags = rows[row].lags;
        for (size_t i = 0; i <= settings->repetitions; i++) {
            double fused = time_pass(pass);
            double torch = bench_peers_ask(peers, "torch everything %llu %u %u", (unsigned long long)settings->elements,
                                           rows[row].tensor_elements, rows[row].lags);
            if (i > 0) // the first prepares
                bench_series_add(&ratio, torch / fused);
        }
        bench_report_row(report, rows[row].name, &ratio, "times less", BENCH_AT_LEAST(rows[row].goal));
    }
}

// What the trainer pays: the pass in its own process, or the handover.
static void against_a_submit(const struct bench_settings *settings, struct bench_report *report,
                             struct bench_peers *peers) {
    enum { TENSOR_ELEMS = 250000, RUN_LAGS = 5, WARM_UP = 10 };
    struct bench_series ratio = {.n = 0};
    struct bench_daemon daemon;
    struct bench_model model;

    bench_daemon_start(&daemon, settings);
    bench_model_init(&model, settings->elements, (uint32_t)(settings->elements / TENSOR_ELEMS), sizeof(float));
    struct gradientd_options options = bench_options(&model, &daemon, "run");
    options.max_lag = RUN_LAGS;
    struct gradientd_run *run = bench_open(&options);
    for (size_t i = 0; i < WARM_UP + settings->repetitions; i++) {
        bench_daemon_wait_idle(&daemon);
        double start = bench_now();
        bench_submit(run, &model, (int64_t)i + 1);
        double stall = bench_now() - start;
        if (i < WARM_UP)
            continue;
        bench_daemon_wait_idle(&daemon);
        double torch = bench_peers_ask(peers, "torch everything %llu %d %d", (unsigned long long)settings->elements,
                                       TENSOR_ELEMS, RUN_LAGS);
        bench_series_add(&ratio, torch / stall);
    }
    bench_close(run);
    bench_daemon_stop(&daemon);
    bench_model_deinit(&model);
    bench_report_row(report, "tuned PyTorch, everything, 5 lags / submit, tensors of 1 MB", &ratio, "times less",
                     BENCH_MORE);
}

static void against_a_cosine(const struct bench_settings *settings, struct bench_report *report,
                             struct bench_peers *peers, struct bench_pass *pass) {
    struct bench_series torch = {.n = 0}, numpy = {.n = 0};
    pass->state = false;
    pass->lags = 1;
    for (size_t i = 0; i <= settings->repetitions; i++) {
        double fused = time_pass(pass);
        unsigned long long elements = settings->elements;
        double torch_seconds = bench_peers_ask(peers, "torch cosine %llu 250000 1", elements);
        double numpy_seconds = bench_peers_ask(peers, "numpy cosine %llu", elements);
        if (i == 0)
            continue;
        bench_series_add(&torch, torch_seconds / fused);
        bench_series_add(&numpy, numpy_seconds / fused);
    }
    bench_report_row(report, "tuned PyTorch, one cosine / fused pass, 1 lag", &torch, "times less", BENCH_MORE);
    bench_report_row(report, "numpy, one cosine / fused pass, 1 lag", &numpy, "times less", BENCH_MORE);
}

static void against_writers(const struct bench_settings *settings, struct bench_report *report,
                            struct bench_peers *peers) {
    static const struct {
        const char *name, *writer;
    } rows[] = {
        {"scalars from trainer to file / tensorboardX", "tensorboardX"},
        {"scalars from trainer to file / torch's SummaryWriter", "torch"},
    };
    int steps = settings->quick ? 5 : 20;
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct bench_series ratio = {.n = 0};
        for (int i = 0; i < 5; i++) {
            double ours = bench_scalars_a_second(settings, 1000);
            double theirs = bench_peers_ask(peers, "scalars %s %d %d", rows[row].writer, SCALAR_TAGS, steps);
            bench_series_add(&ratio, ours / theirs);
        }
        bench_report_row(report, rows[row].name, &ratio, "times more", BENCH_AT_LEAST(300));
    }
}

void bench_against(const struct bench_settings *settings, struct bench_report *report) {
    struct bench_peers peers;
    struct bench_memory memory;
    struct bench_pass pass = {.memory = &memory, .threads = 1};

    if (!settings->python)
        return;
    bench_peers_start(&peers, settings);
    bench_memory_init(&memory, settings->elements, GD_F32, LAGS);
    if (gd_kernels_select(getenv("GRADIENTD_KERNELS"), &pass.kernels) < 0)
        bench_fail("GRADIENTD_KERNELS is unknown or needs another machine");
    against_torch(settings, report, &peers, &pass);
    against_a_cosine(settings, report, &peers, &pass);
    bench_memory_deinit(&memory);
    against_a_submit(settings, report, &peers);
    against_writers(settings, report, &peers);
    bench_peers_stop(&peers);
}
