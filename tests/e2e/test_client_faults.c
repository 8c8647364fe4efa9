// The daemon dies, stops or is slow: the job goes on, and what was promised of the file holds.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

static struct trainer_warnings warnings;

TestSuite(client_faults, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static int submit_one(struct gradientd_run *run, int64_t i) {
    float gradient[TRAINER_NUMEL];
    trainer_gradient(i, gradient);
    struct gradientd_step step = trainer_step(i);
    return trainer_submit(run, &step, gradient);
}

// Goes on training after step `last` with a daemon that never comes back.
static void expect_away(struct gradientd_run *run, int64_t last) {
    enum { STEPS = 100 };
    int result = GRADIENTD_OK;
    for (int64_t i = last + 1; i <= last + STEPS; i++) {
        result = submit_one(run, i);
        cr_assert(result == GRADIENTD_SKIPPED || result == GRADIENTD_OK, "step %lld: %d", (long long)i, result);
    }
    cr_assert_eq(result, GRADIENTD_SKIPPED, "slots do not run out");
    cr_assert_eq(warnings.count, 1);
    cr_assert(strstr(warnings.text, "went away; steps are skipped until it is back"), "%s", warnings.text);

    const struct gradientd_scalar scalar = {"a", 1.0f};
    cr_assert_null(gradientd_acquire(run));
    cr_assert_eq(gradientd_scalars(run, last + STEPS, 0.0, &scalar, 1), GRADIENTD_OK);
    double before = scratch_now();
    cr_assert_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
    cr_assert_lt(scratch_now() - before, 5.0, "close waited for a daemon that is gone");
    cr_assert_eq(warnings.count, 1);
}

Test(client_faults, killed_daemon) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "killed", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    for (int64_t i = 1; i <= 50; i++)
        submit_one(run, i);
    daemon_process_kill(&daemon_process);
    expect_away(run, 50);
}

// Loses the daemon without options.warn, with `stderr_fd` as stderr.
static void lose_daemon_onto(int stderr_fd) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "quiet", NULL);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    submit_one(run, 1);
    daemon_process_kill(&daemon_process);
    int kept = dup(STDERR_FILENO);
    dup2(stderr_fd, STDERR_FILENO);
    for (int64_t i = 2; i < 50; i++)
        submit_one(run, i);
    gradientd_close(run, GRADIENTD_SUCCESS);
    dup2(kept, STDERR_FILENO);
    close(kept);
}

Test(client_faults, warning_is_one_line_on_stderr) {
    char text[4096];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    lose_daemon_onto(ends[1]);
    close(ends[1]);
    ssize_t bytes = read(ends[0], text, sizeof(text));
    cr_assert_gt(bytes, 0, "nothing is said");
    cr_assert_eq(memchr(text, '\n', (size_t)bytes), text + bytes - 1, "%.*s", (int)bytes, text);
    cr_assert(memmem(text, (size_t)bytes, "went away", 9), "%.*s", (int)bytes, text);
}

Test(client_faults, warning_to_a_closed_pipe_raises_no_signal) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    close(ends[0]);
    lose_daemon_onto(ends[1]);
    close(ends[1]);
}

Test(client_faults, warning_to_a_full_pipe_does_not_block) {
    char zeros[4096] = {0};
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], zeros, sizeof(zeros)) > 0)
        ;
    fcntl(ends[1], F_SETFL, 0);
    lose_daemon_onto(ends[1]);
    close(ends[0]);
    close(ends[1]);
}

static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(client_faults, warning_to_a_full_file_raises_no_signal) {
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/full", directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "run", NULL);
    cr_assert(fd >= 0 && write(fd, path, 10) == 10);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    submit_one(run, 1);
    limit_files(10);
    daemon_process_kill(&daemon_process);
    cr_assert_geq(dup2(fd, STDERR_FILENO), 0);
    for (int64_t i = 2; i < 50; i++) // SIGXFSZ would end this process
        submit_one(run, i);
    gradientd_close(run, GRADIENTD_SUCCESS);
    cr_assert_eq(lseek(fd, 0, SEEK_END), 10);
    close(fd);
}

Test(client_faults, memory_beyond_the_limit_of_files_is_refused_without_a_signal) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "run", &warnings);
    struct gradientd_run *run;
    struct gradientd_error error;
    limit_files(4096);
    cr_expect_eq(gradientd_open(&options, &run, &error), -EFBIG, "%s", error.text);
    cr_expect_null(run);
    limit_files(RLIM_INFINITY);
}

// Submits from step `first` to a stopped daemon until a step is skipped; the number of that step.
static int64_t fill_slots(struct gradientd_run *run, int64_t first) {
    enum { SLOTS = TRAINER_MAX_LAG + 1 + 2 };
    int64_t i = first;
    while (submit_one(run, i) == GRADIENTD_OK) {
        i++;
        cr_assert_leq(i, first + SLOTS, "a stopped daemon frees slots");
    }
    cr_assert_eq(gradientd_skipped(run), 1);
    return i;
}

Test(client_faults, killed_daemon_with_all_slots_taken) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "killed", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_freeze(&daemon_process);
    int64_t last = fill_slots(run, 1);
    daemon_process_kill(&daemon_process);
    expect_away(run, last);
}

// Trains from step `first` on until a step is skipped, which takes one max_stall, however many steps follow.
static int64_t exhaust_slots(struct gradientd_run *run, int64_t first) {
    while (submit_one(run, first) == GRADIENTD_OK)
        first++;
    return first;
}

Test(client_faults, terminated_daemon) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "terminated", &warnings);
    options.max_stall = 0.3;
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, 50);
    daemon_process_stop(&daemon_process);
    int64_t last = exhaust_slots(run, 51);
    double before = scratch_now();
    expect_away(run, last);
    cr_assert_lt(scratch_now() - before, 10.0, "100 steps waited, each max_stall");

    struct event_values values;
    event_values_read(path, &values); // SIGTERM drains what was submitted, and ends no file
    cr_assert(values.whole);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), 50);
    cr_assert_eq(values.stops, 0);
    event_values_free(&values);
}

struct progress {
    struct gradientd_run *run;
    int64_t *step;
    unsigned *accepted;
};

// Trains one step more; whether the daemon took it.
static bool takes_a_step(const void *context) {
    const struct progress *progress = context;
    int result = submit_one(progress->run, ++*progress->step);
    cr_assert(result == GRADIENTD_OK || result == GRADIENTD_SKIPPED, "%d", result);
    *progress->accepted += result == GRADIENTD_OK;
    return result == GRADIENTD_OK;
}

Test(client_faults, stopped_daemon_costs_steps_and_no_time) {
    enum { STEPS_WHILE_STOPPED = 1000 };
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "stopped", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));

    daemon_process_freeze(&daemon_process);
    int64_t first_skipped = fill_slots(run, 1);
    unsigned accepted = (unsigned)first_skipped - 1;
    for (int64_t i = first_skipped + 1; i <= STEPS_WHILE_STOPPED; i++) // one that waited would wait for ever
        cr_assert_eq(submit_one(run, i), GRADIENTD_SKIPPED);
    cr_assert_eq(gradientd_skipped(run), STEPS_WHILE_STOPPED - accepted);

    int64_t step = STEPS_WHILE_STOPPED;
    daemon_process_thaw(&daemon_process);
    struct progress progress = {run, &step, &accepted};
    cr_assert(scratch_wait_until(takes_a_step, &progress, 20.0), "no step is taken after SIGCONT");
    cr_assert_eq(gradientd_skipped(run), (uint64_t)step - accepted);
    trainer_close(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);

    struct event_values values;
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), accepted);
    const struct event_value *fraction = event_values_find(&values, "gradientd/observed_fraction", step);
    cr_assert(fraction);
    cr_assert_float_eq(fraction->value, (float)accepted / (float)step, 1e-6f);
    event_values_free(&values);
}

Test(client_faults, rates_changed_in_a_skipped_step_hold_from_the_next_one) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "rates", &warnings);
    options.max_stall = 0.0;
    options.optimizer.rule = GRADIENTD_ADAM;
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));

    daemon_process_freeze(&daemon_process);
    int64_t step_number = fill_slots(run, 1) + 1;
    const double eps = 1000.0;
    struct gradientd_step step = trainer_step(step_number);
    step.eps = &eps;
    float gradient[TRAINER_NUMEL];
    trainer_gradient(step_number, gradient);
    cr_assert_eq(trainer_submit(run, &step, gradient), GRADIENTD_SKIPPED);
    unsigned accepted = 0;
    daemon_process_thaw(&daemon_process);
    struct progress progress = {run, &step_number, &accepted};
    cr_assert(scratch_wait_until(takes_a_step, &progress, 20.0), "no step is taken after SIGCONT");
    trainer_close(run);

    struct event_values values;
    event_values_read(path, &values);
    const struct event_value *size = event_values_find(&values, "adam/step_size_mean", step_number);
    cr_assert(size);
    cr_assert_float_eq(size->value, 1e-4f, 5e-6f, "%g", (double)size->value); // rate 0.1 over eps, which rules
    event_values_free(&values);
}

Test(client_faults, step_waits_no_longer_than_max_stall) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "stall", &warnings);
    options.max_stall = 0.05;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_freeze(&daemon_process);
    int64_t last = fill_slots(run, 1);
    double before = scratch_now();
    cr_assert_eq(submit_one(run, last + 1), GRADIENTD_SKIPPED);
    double waited = scratch_now() - before;
    cr_assert(waited >= 0.05 && waited < 5.0, "waited %f s", waited);
    daemon_process_thaw(&daemon_process);
    trainer_close(run);
}

Test(client_faults, scalars_outlive_skipped_steps) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "scalars", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    daemon_process_freeze(&daemon_process);
    int64_t skipped = fill_slots(run, 1) + 1;

    const struct gradientd_scalar loss = {"train/loss", 0.5f};
    struct gradientd_step step = trainer_step(skipped);
    float gradient[TRAINER_NUMEL];
    trainer_gradient(skipped, gradient);
    step.scalars = &loss;
    step.n_scalars = 1;
    cr_assert_eq(trainer_submit(run, &step, gradient), GRADIENTD_SKIPPED);
    cr_assert_null(gradientd_acquire(run));
    step = trainer_step(skipped + 1);
    step.scalars = &loss;
    step.n_scalars = 1;
    cr_assert_eq(gradientd_commit(run, &step, NULL), GRADIENTD_SKIPPED);
    cr_assert_eq(gradientd_skipped(run), 3);
    daemon_process_thaw(&daemon_process);
    trainer_close(run);

    struct event_values values;
    event_values_read(path, &values);
    for (int64_t i = skipped; i <= skipped + 1; i++) {
        const struct event_value *value = event_values_find(&values, "train/loss", i);
        cr_assert(value && value->value == 0.5f, "step %lld", (long long)i);
        cr_assert_null(event_values_find(&values, "gradient/norm", i));
    }
    event_values_free(&values);
}

Test(client_faults, close_gives_a_stopped_daemon_close_timeout) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "close", &warnings);
    options.close_timeout = 0.1;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_freeze(&daemon_process);
    double before = scratch_now();
    cr_assert_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
    double waited = scratch_now() - before;
    cr_assert(waited >= 0.1 && waited < 5.0, "waited %f s", waited);
    cr_assert_eq(warnings.count, 1);
    cr_assert(strstr(warnings.text, "close_timeout"), "%s", warnings.text);
    daemon_process_thaw(&daemon_process);
}

enum { MANY_TAGS = 64, LONG_TAG = 200 };

// The trainer's scalars until the next would fit neither the socket of a stopped daemon nor the client's buffer, to the
// last byte: large messages first, then ever smaller ones. Returns how many values were taken.
static size_t fill_output(struct gradientd_run *run) {
    char tags[MANY_TAGS][LONG_TAG + 1];
    struct gradientd_scalar scalars[MANY_TAGS];
    size_t taken = 0;
    int64_t step = 0;
    for (int i = 0; i < MANY_TAGS; i++) {
        snprintf(tags[i], sizeof(tags[i]), "%0*d", LONG_TAG, i);
        scalars[i] = (struct gradientd_scalar){tags[i], 1.0f};
    }
    while (gradientd_scalars(run, step++, TRAINER_WALL_TIME, scalars, MANY_TAGS) == GRADIENTD_OK)
        taken += MANY_TAGS;
    for (int bytes = LONG_TAG; bytes > 0; bytes--) {
        scalars[0].tag = tags[0] + LONG_TAG - bytes;
        while (gradientd_scalars(run, step++, TRAINER_WALL_TIME, scalars, 1) == GRADIENTD_OK)
            taken++;
    }
    cr_assert_eq(gradientd_scalars(run, step, TRAINER_WALL_TIME, scalars, 1), GRADIENTD_SKIPPED);
    return taken;
}

Test(client_faults, run_with_a_full_buffer_still_closes) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "full", &warnings);
    struct gradientd_run *run = trainer_open(&options);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    daemon_process_freeze(&daemon_process);
    size_t taken = fill_output(run);
    daemon_process_thaw(&daemon_process);
    trainer_close(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);

    struct event_values values;
    event_values_read(path, &values);
    cr_assert_eq(values.n_values, taken);
    cr_assert_eq(values.stops, 1);
    event_values_free(&values);
}

Test(client_faults, closed_standard_descriptors_stay_closed) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "closed", &warnings);
    trainer_expect_standard_descriptors_left(&options);
    options.run = "inline";
    options.transport = GRADIENTD_INLINE;
    trainer_expect_standard_descriptors_left(&options);
}
