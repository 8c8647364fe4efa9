// The steps of a real training, examples/digits with adam, without gradientd and with a daemon that runs, is stopped,
// is gone, or is killed and started again every second. A step is forward, backward, optimiser and submit.
#include <stdio.h>

#include "bench.h"
#include "digits_training.h"
#include "keeper.h"
#include "sidecar.h"

enum {
    TURNS = 4,          // of each trainer in a repetition, so that what else the machine does disturbs all alike ...
    STEPS_MAX = 100000, // ... and of its steps in one
    WARM_UP = 10,       // steps at the start of a turn: every slot, and the network back in the caches
    SLOTS = 8,          // of a run with 5 lags and 2 in flight: as many steps are taken without a daemon
    REPETITIONS = 11,   // of six seconds each
};

static const double TURN_SECONDS = 0.25; // TURNS of them are the second after which a daemon is started again

struct trainer;

struct situation {
    const char *name;
    bool attached, kept;                      // has a daemon; and one that a keeper starts again
    bool seen;                                // its steps are, whatever becomes of the daemon ...
    unsigned warnings;                        // ... of which the trainer is told that often
    void (*disturb)(struct trainer *trainer); // once in a repetition
    void (*mend)(struct trainer *trainer, const struct bench_settings *settings); // for the run to end well
};

struct trainer {
    const struct situation *situation;
    struct bench_daemon daemon;
    struct bench_keeper keeper;
    unsigned warnings;
    struct gradientd_run *run; // NULL: trains without
    int64_t step;
    double seconds[STEPS_MAX];        // of each step that was timed in this repetition
    size_t n, n_taken;                // of them, and of those that the daemon was to see
    struct bench_series median, high; // seconds, of each repetition; the other is the 99th percentile
};

static void freeze(struct trainer *trainer) {
    bench_daemon_freeze(&trainer->daemon);
}

static void thaw(struct trainer *trainer, const struct bench_settings *settings) {
    (void)settings;
    bench_daemon_thaw(&trainer->daemon);
}

static void end(struct trainer *trainer) {
    bench_daemon_kill(&trainer->daemon);
}

static void start_again(struct trainer *trainer, const struct bench_settings *settings) {
    bench_daemon_restart(&trainer->daemon, settings);
}

static void have_restarted(struct trainer *trainer) {
    bench_keeper_restart(&trainer->keeper);
}

static const struct situation situations[] = {
    {.name = "without gradientd"},
    {.name = "without gradientd again"}, // what of the others is noise
    {.name = "daemon running", .attached = true, .seen = true},
    {.name = "daemon stopped", .attached = true, .disturb = freeze, .mend = thaw},
    {.name = "daemon killed", .attached = true, .warnings = 1, .disturb = end, .mend = start_again},
    {.name = "daemon restarted every second",
     .attached = true,
     .kept = true,
     .seen = true,
     .warnings = 1,
     .disturb = have_restarted},
};

enum { SITUATIONS = sizeof(situations) / sizeof(situations[0]) };

// Always the same network at its start: all trainers take the same steps.
static void draw_network(struct digits_training *training, const struct digits_data *data) {
    const struct optimizer_choice adam = {.kind = OPTIMIZER_ADAM, .learning_rate = 0.005};
    if (digits_training_init(training, data, 1, adam) < 0)
        bench_fail("out of memory");
}

static void count_warning(void *context, const char *text) {
    struct trainer *trainer = context;
    (void)text;
    trainer->warnings++;
}

static void open_trainer(struct trainer *trainer, const struct situation *situation,
                         const struct digits_training *training, const struct bench_settings *settings) {
    struct gradientd_group groups[MLP_TENSORS];
    const struct bench_model model = {.groups = groups, .n_groups = MLP_TENSORS};

    trainer->situation = situation;
    trainer->run = NULL;
    trainer->warnings = 0;
    trainer->step = 0;
    trainer->n = trainer->n_taken = 0;
    if (!situation->attached)
        return;
    if (situation->kept)
        bench_keeper_start(&trainer->keeper, settings, &trainer->daemon);
    else
        bench_daemon_start(&trainer->daemon, settings);
    digits_training_describe(training, groups);
    struct gradientd_options options = bench_options(&model, &trainer->daemon, "digits");
    options.max_stall = 0.0;
    options.warn = count_warning;
    options.warn_context = trainer;
    trainer->run = bench_open(&options);
}

// Else something other than what its name says was measured.
static void expect_situation(const struct trainer *trainer) {
    const struct situation *situation = trainer->situation;
    bool seen = trainer->n_taken > SLOTS;
    if (seen != situation->seen || trainer->warnings != situation->warnings)
        bench_fail("%s: %zu of %zu steps were taken, with %u warnings", situation->name, trainer->n_taken, trainer->n,
                   trainer->warnings);
}

static void close_trainer(struct trainer *trainer, const struct bench_settings *settings) {
    const struct situation *situation = trainer->situation;

    expect_situation(trainer);
    if (!situation->attached)
        return;
    if (situation->mend)
        situation->mend(trainer, settings);
    bench_close(trainer->run);
    if (situation->kept)
        bench_keeper_stop(&trainer->keeper);
    else
        bench_daemon_stop(&trainer->daemon);
}

static int take_step(struct trainer *trainer, struct digits_training *training) {
    double loss = digits_training_step(training);
    return digits_training_submit(training, trainer->run, ++trainer->step, loss);
}

static void take_turn(struct trainer *trainer, const struct digits_data *data, bool disturbed) {
    struct digits_training training;

    draw_network(&training, data);
    for (int i = 0; i < WARM_UP; i++)
        take_step(trainer, &training);
    if (disturbed && trainer->situation->disturb)
        trainer->situation->disturb(trainer);
    double start = bench_now(), end_of_turn = start + TURN_SECONDS;
    while (start < end_of_turn && trainer->n < STEPS_MAX) {
        trainer->n_taken += take_step(trainer, &training) == GRADIENTD_OK;
        double now = bench_now();
        trainer->seconds[trainer->n++] = now - start;
        start = bench_now();
    }
    digits_training_deinit(&training);
}

static void repeat(struct trainer *trainers, const struct digits_data *data, const struct bench_settings *settings) {
    struct digits_training training;
    draw_network(&training, data);
    for (size_t i = 0; i < SITUATIONS; i++)
        open_trainer(&trainers[i], &situations[i], &training, settings);
    digits_training_deinit(&training);
    for (int turn = 0; turn < TURNS; turn++)
        for (size_t i = 0; i < SITUATIONS; i++)
            take_turn(&trainers[i], data, turn == 0);
    for (size_t i = 0; i < SITUATIONS; i++) {
        struct trainer *trainer = &trainers[i];
        close_trainer(trainer, settings);
        bench_series_add(&trainer->median, bench_quantile(trainer->seconds, trainer->n, 0.5));
        bench_series_add(&trainer->high, bench_quantile(trainer->seconds, trainer->n, 0.99));
    }
}

static void report_row(struct bench_report *report, const char *quantile, const struct trainer *trainer,
                       const struct bench_series *series, const char *unit) {
    char name[96];
    snprintf(name, sizeof(name), "training, %s, %s", quantile, trainer->situation->name);
    bench_report_row(report, name, series, unit, BENCH_LESS);
}

static void report_quantiles(struct bench_report *report, const struct trainer *trainers) {
    static const char median[] = "median", high[] = "99th percentile", ratio[] = "x a step without gradientd";
    const struct trainer *alone = &trainers[0];
    struct bench_series series = bench_series_in_units(&alone->median, 1e-6);
    report_row(report, median, alone, &series, "us a step");
    series = bench_series_in_units(&alone->high, 1e-6);
    report_row(report, high, alone, &series, "us a step");
    for (size_t i = 1; i < SITUATIONS; i++) {
        series = bench_series_ratio(&trainers[i].median, &alone->median);
        report_row(report, median, &trainers[i], &series, ratio);
    }
    for (size_t i = 1; i < SITUATIONS; i++) {
        series = bench_series_ratio(&trainers[i].high, &alone->high);
        report_row(report, high, &trainers[i], &series, ratio);
    }
}

void bench_training(const struct bench_settings *settings, struct bench_report *report) {
    static struct trainer trainers[SITUATIONS];
    static struct digits_data data;

    if (digits_data_read(&data, BENCH_DIGITS) < 0)
        bench_fail("the digits cannot be read");
    for (size_t i = 0; i < (settings->quick ? 1 : REPETITIONS); i++)
        repeat(trainers, &data, settings);
    report_quantiles(report, trainers);
}
