#include "trainer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static const double learning_rate = 0.1;

static void count_warning(void *context, const char *text) {
    struct trainer_warnings *warnings = context;
    warnings->count++;
    snprintf(warnings->text, sizeof(warnings->text), "%s", text);
}

struct gradientd_options trainer_options(const char *socket, const char *logdir, const char *run,
                                         struct trainer_warnings *warnings) {
    static const struct gradientd_group groups[] = {
        {.name = "layer/weight", .numel = TRAINER_FIRST_NUMEL},
        {.name = "layer/bias", .numel = TRAINER_NUMEL - TRAINER_FIRST_NUMEL},
    };
    static const struct gradientd_parameter_group rates[] = {{.beta2 = 0.0, .eps = 0.0}};

    struct gradientd_options options = gradientd_options_default();
    options.socket = socket;
    options.logdir = logdir;
    options.run = run;
    options.groups = groups;
    options.n_groups = sizeof(groups) / sizeof(groups[0]);
    options.parameter_groups = rates;
    options.n_parameter_groups = 1;
    options.max_lag = TRAINER_MAX_LAG;
    options.wall_time = TRAINER_WALL_TIME;
    options.connect_timeout = 20.0;
    options.max_stall = 20.0;
    options.close_timeout = 20.0;
    if (warnings) {
        *warnings = (struct trainer_warnings){0};
        options.warn = count_warning;
        options.warn_context = warnings;
    }
    return options;
}

struct gradientd_run *trainer_open(const struct gradientd_options *options) {
    struct gradientd_run *run;
    struct gradientd_error error;
    cr_assert(gradientd_open(options, &run, &error) == 0, "%s", error.text);
    cr_assert(run);
    return run;
}

void trainer_close(struct gradientd_run *run) {
    int result = gradientd_close(run, GRADIENTD_SUCCESS);
    cr_assert(result == GRADIENTD_OK, "gradientd_close: %d", result);
}

struct gradientd_step trainer_step(int64_t step) {
    return (struct gradientd_step){
        .step = step,
        .learning_rates = &learning_rate,
        .wall_time = TRAINER_WALL_TIME + (double)step,
    };
}

void trainer_gradient(int64_t step, float gradient[TRAINER_NUMEL]) {
    for (int i = 0; i < TRAINER_NUMEL; i++)
        gradient[i] = (float)((step * 7 + i * 3) % 11 - 5) + 0.25f;
}

int trainer_submit(struct gradientd_run *run, const struct gradientd_step *step, const float *gradient) {
    const void *gradients[] = {gradient, gradient + TRAINER_FIRST_NUMEL};
    return gradientd_submit(run, step, gradients);
}

void trainer_submit_steps(struct gradientd_run *run, int64_t first, int64_t last) {
    for (int64_t i = first; i <= last; i++) {
        float gradient[TRAINER_NUMEL];
        trainer_gradient(i, gradient);
        struct gradientd_step step = trainer_step(i);
        int result = trainer_submit(run, &step, gradient);
        cr_assert(result == GRADIENTD_OK, "step %lld: %d %s", (long long)i, result, gradientd_last_error(run));
    }
}

// Which of the standard descriptors are open, a bit each.
static int open_standard_descriptors(void) {
    int open = 0;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        open |= (fcntl(fd, F_GETFD) >= 0) << fd;
    return open;
}

static int train_without_standard_descriptors(const struct gradientd_options *options) {
    struct gradientd_run *run;
    float gradient[TRAINER_NUMEL];
    const struct gradientd_step step = trainer_step(1);

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        close(fd);
    if (gradientd_open(options, &run, NULL) < 0)
        return 1 << 3;
    int taken = open_standard_descriptors();
    trainer_gradient(1, gradient);
    int result = trainer_submit(run, &step, gradient);
    return taken | (result != GRADIENTD_OK) << 4 | (gradientd_close(run, GRADIENTD_SUCCESS) != GRADIENTD_OK) << 5;
}

void trainer_expect_standard_descriptors_left(const struct gradientd_options *options) {
    int status;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        _exit(train_without_standard_descriptors(options));
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x", (unsigned)status);
}
