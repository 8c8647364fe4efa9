#include "victim.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "scratch.h"
#include "trainer.h"

enum {
    N_GROUPS = 4,
    WEIGHT_NUMEL = 20000, // enough that a step is not over when the next attack comes
    BIAS_NUMEL = 100,
    EMBEDDING_NUMEL = 5000,
    HEAD_NUMEL = 7,
    NUMEL = WEIGHT_NUMEL + BIAS_NUMEL + EMBEDDING_NUMEL + HEAD_NUMEL,
    STEPS_MORE = 5, // after the attack
    PAUSE_US = 1000,
};

static const double PATIENCE_SECONDS = 60.0;

static struct gradientd_run *open_victim(const char *socket, const char *logdir, const char *name,
                                         struct trainer_warnings *warnings) {
    static const struct gradientd_group groups[N_GROUPS] = {
        {.name = "layer/weight", .numel = WEIGHT_NUMEL},
        {.name = "layer/bias", .numel = BIAS_NUMEL, .parameter_group = 1},
        {.name = "embedding", .numel = EMBEDDING_NUMEL},
        {.name = "head", .numel = HEAD_NUMEL, .parameter_group = 1},
    };
    static const struct gradientd_parameter_group rates[] = {{.beta2 = 0.99, .eps = 1e-8}, {.beta2 = 0.9, .eps = 1e-6}};
    struct gradientd_options options = trainer_options(socket, logdir, name, warnings);
    options.groups = groups;
    options.n_groups = N_GROUPS;
    options.parameter_groups = rates;
    options.n_parameter_groups = 2;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.per_group = GRADIENTD_PER_GROUP_ON;
    options.max_lag = 4;
    return trainer_open(&options);
}

// Every fourth step without the bias, each with two values of the trainer's, every third with one between steps.
static void train_step(struct gradientd_run *run, int64_t number, struct victim_report *report) {
    static float gradient[NUMEL];
    const double learning_rates[] = {0.1 / (double)number, 0.01};
    const struct gradientd_scalar values[] = {{"train/loss", 1.0f / (float)number}, {"train/step", (float)number}};
    const struct gradientd_scalar validation = {"validation/loss", (float)number};
    struct gradientd_step step = trainer_step(number);
    for (int64_t i = 0; i < NUMEL; i++)
        gradient[i] = (float)((number * 7 + i * 3) % 11 - 5) + 0.25f;
    const void *gradients[N_GROUPS] = {gradient, number % 4 ? gradient + WEIGHT_NUMEL : NULL,
                                       gradient + WEIGHT_NUMEL + BIAS_NUMEL, gradient + NUMEL - HEAD_NUMEL};
    step.learning_rates = learning_rates;
    step.scalars = values;
    step.n_scalars = 2;
    double start = scratch_now();
    int result = gradientd_submit(run, &step, gradients);
    uint64_t took_us = (uint64_t)((scratch_now() - start) * 1e6);
    cr_assert_eq(result, GRADIENTD_OK, "step %lld: %d %s", (long long)number, result, gradientd_last_error(run));
    if (took_us > report->longest_us)
        report->longest_us = took_us;
    if (number % 3 == 0)
        cr_assert_eq(gradientd_scalars(run, number, TRAINER_WALL_TIME + (double)number, &validation, 1), GRADIENTD_OK);
}

static void train(const char *socket, const char *logdir, const char *name, struct victim_report *report) {
    static const struct timespec pause = {.tv_nsec = PAUSE_US * 1000};
    struct trainer_warnings warnings;
    struct gradientd_run *run = open_victim(socket, logdir, name, &warnings);
    bool paced = report->last == 0;
    snprintf(report->path, sizeof(report->path), "%s", gradientd_event_path(run));
    for (int64_t number = 1; report->last == 0 || number <= report->last; number++) {
        train_step(run, number, report);
        report->steps = number;
        if (paced)
            nanosleep(&pause, NULL);
    }
    uint64_t skipped = gradientd_skipped(run);
    trainer_close(run);
    cr_assert_eq(skipped, 0, "the victim lost %llu steps", (unsigned long long)skipped);
    cr_assert_eq(warnings.count, 0, "the victim was told: %s", warnings.text);
}

static void start(struct victim *victim, const char *socket, const char *logdir, const char *run, int64_t last) {
    victim->report = mmap(NULL, sizeof(*victim->report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(victim->report, MAP_FAILED);
    victim->report->last = last;
    victim->pid = fork();
    cr_assert_geq(victim->pid, 0);
    if (victim->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        train(socket, logdir, run, victim->report);
        _exit(EXIT_SUCCESS);
    }
    victim->pidfd = (int)syscall(SYS_pidfd_open, victim->pid, 0);
    cr_assert_geq(victim->pidfd, 0, "pidfd_open: %s", strerror(errno));
}

static void expect_end(struct victim *victim) {
    int status;
    cr_assert(scratch_wait_readable(victim->pidfd, PATIENCE_SECONDS), "the victim does not end, at step %lld",
              (long long)victim->report->steps);
    close(victim->pidfd);
    cr_assert_eq(waitpid(victim->pid, &status, 0), victim->pid);
    cr_assert_eq(status, 0, "the victim's wait status is 0x%x", (unsigned)status);
}

static bool trains_or_is_gone(const void *context) {
    const struct victim *victim = context;
    return victim->report->steps > 0 || scratch_wait_readable(victim->pidfd, 0.0);
}

void victim_start(struct victim *victim, const char *socket, const char *logdir, const char *run) {
    start(victim, socket, logdir, run, 0);
    cr_assert(scratch_wait_until(trains_or_is_gone, victim, PATIENCE_SECONDS) && victim->report->steps > 0,
              "the victim does not train");
}

int64_t victim_finish(struct victim *victim) {
    int64_t last = victim->report->steps + STEPS_MORE;
    victim->report->last = last;
    expect_end(victim);
    return victim->report->steps;
}

void victim_train_alone(struct victim *victim, const char *socket, const char *logdir, const char *run, int64_t steps) {
    start(victim, socket, logdir, run, steps);
    expect_end(victim);
}

void victim_free(struct victim *victim) {
    munmap(victim->report, sizeof(*victim->report));
}
