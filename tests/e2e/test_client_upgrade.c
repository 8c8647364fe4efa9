// The daemon is replaced by one that lays memory out in another way: the run goes on in other memory and another event
// file. It is the daemon that is built with fault points, whose page says which version it is.
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "event_values.h"
#include "fault.h"
#include "fixture.h"
#include "trainer.h"

enum { STEPS_BEFORE = 20, STEPS_AFTER = 20 };

static const double PATIENCE = 20.0; // seconds

static struct gd_fault_page *page;
static struct trainer_warnings warnings;

static void set_up(void) {
    char path[SCRATCH_PATH_BYTES + 8];
    scratch_make(directory);
    snprintf(path, sizeof(path), "%s/page", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, sizeof(*page)) == 0);
    page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(page, MAP_FAILED);
    close(fd);
    setenv("GRADIENTD_FAULT_PAGE", path, 1);
    daemon_process_start(&daemon_process, directory);
}

TestSuite(client_upgrade, .init = set_up, .fini = fixture_tear_down, .timeout = 120);

static void upgrade(uint32_t more_bytes) {
    daemon_process_stop(&daemon_process);
    page->later_versions++;
    page->more_bytes += more_bytes;
    daemon_process_start(&daemon_process, directory);
}

// A step, which takes a millisecond: what 1 MiB of messages cannot hold until a daemon is back would be dropped.
static int submit(struct gradientd_run *run, int64_t step) {
    const struct timespec computing = {.tv_nsec = 1000000};
    const struct gradientd_scalar loss = {"train/loss", 1.0f / (float)step};
    float gradient[TRAINER_NUMEL];
    struct gradientd_step described = trainer_step(step);
    described.scalars = &loss;
    described.n_scalars = 1;
    nanosleep(&computing, NULL);
    trainer_gradient(step, gradient);
    return trainer_submit(run, &described, gradient);
}

// Trains on, as fast as it can, until a step is taken that will be in another file than `path`. Returns that step.
static int64_t train_until_elsewhere(struct gradientd_run *run, int64_t step, const char *path) {
    for (double start = scratch_now();; step++) {
        int result = submit(run, step);
        cr_assert_neq(result, GRADIENTD_DETACHED, "%s", gradientd_last_error(run));
        if (result == GRADIENTD_OK && strcmp(gradientd_event_path(run), path) != 0)
            return step;
        cr_assert_lt(scratch_now() - start, PATIENCE, "the run does not go on elsewhere");
    }
}

// Each step's value of the trainer's own is in one of the files; so is its gradient, unless it was skipped.
static void expect_all(const struct event_values *before, const struct event_values *after, int64_t last,
                       uint64_t skipped) {
    for (int64_t step = 1; step <= last; step++)
        cr_expect_eq(!!event_values_find(before, "train/loss", step) + !!event_values_find(after, "train/loss", step),
                     1, "the value of step %lld is not there once", (long long)step);
    size_t norms = event_values_count(before, "gradient/norm") + event_values_count(after, "gradient/norm");
    cr_expect_gt(event_values_count(after, "gradient/norm"), STEPS_AFTER / 2);
    cr_expect_eq(norms + skipped, (size_t)last, "%zu gradients of %lld steps, %llu skipped", norms, (long long)last,
                 (unsigned long long)skipped);
}

static void play_upgrade(uint32_t more_bytes, double max_stall) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "run", &warnings);
    struct event_values before, after;
    char path[512], next_path[512];

    options.max_stall = max_stall;
    options.inflight = 2 * STEPS_AFTER;
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    for (int64_t step = 1; step <= STEPS_BEFORE; step++)
        (void)!submit(run, step);
    upgrade(more_bytes);
    int64_t step = train_until_elsewhere(run, STEPS_BEFORE + 1, path), last = step + STEPS_AFTER;
    snprintf(next_path, sizeof(next_path), "%s", gradientd_event_path(run));
    while (step < last)
        (void)!submit(run, ++step);
    uint64_t skipped = gradientd_skipped(run);
    trainer_close(run);

    event_values_read(path, &before);
    event_values_read(next_path, &after);
    expect_all(&before, &after, last, skipped);
    cr_expect_gt(skipped, 0); // the step that met the upgrade
    cr_expect(after.start_step > STEPS_BEFORE && after.stops == 1 && before.stops == 0);
    cr_expect_gt(strcmp(next_path, path), 0, "%s does not follow %s", next_path, path);
    cr_expect_eq(warnings.count, 2, "%u warnings: %s", warnings.count, warnings.text);
    cr_expect(strstr(warnings.text, "new event file"), "%s", warnings.text);
    event_values_free(&before);
    event_values_free(&after);
}

Test(client_upgrade, another_version) {
    play_upgrade(0, 0.0);
}

Test(client_upgrade, another_size) {
    play_upgrade(3 << 12, 0.0);
}

Test(client_upgrade, a_submit_that_waits) {
    play_upgrade(0, 10.0);
}

Test(client_upgrade, twice_in_the_state_directory) {
    struct gradientd_options options = trainer_options(daemon_process.socket, NULL, "run", &warnings);
    struct event_values values;
    char paths[3][512];
    int64_t step = 1;

    struct gradientd_run *run = trainer_open(&options);
    size_t fds = scratch_count_fds(0);
    snprintf(paths[0], sizeof(paths[0]), "%s", gradientd_event_path(run));
    for (int i = 1; i <= 2; i++) {
        upgrade(1 << 12);
        step = train_until_elsewhere(run, step, paths[i - 1]) + 1;
        snprintf(paths[i], sizeof(paths[i]), "%s", gradientd_event_path(run));
        cr_expect_eq(scratch_count_fds(0), fds);
    }
    trainer_close(run);
    event_values_read(paths[2], &values);
    cr_expect(event_values_find(&values, "gradient/norm", step - 1));
    cr_expect(values.stops == 1 && values.whole);
    event_values_free(&values);
}

// A trainer whose gradients live in a slot may look at them until it gets the next one.
Test(client_upgrade, a_slot_that_was_lent_stays_readable) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "run", &warnings);
    float gradient[TRAINER_NUMEL];
    char path[512];

    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    struct gradientd_step described = trainer_step(1);
    float *slot = gradientd_acquire(run);
    cr_assert(slot);
    trainer_gradient(1, gradient);
    memcpy(slot, gradient, sizeof(gradient));
    cr_assert_eq(gradientd_commit(run, &described, NULL), GRADIENTD_OK);
    upgrade(1 << 12);
    train_until_elsewhere(run, 2, path);
    cr_expect_arr_eq(slot, gradient, sizeof(gradient));
    trainer_close(run);
}

// The old file's end cannot be written any more: that is said at once.
Test(client_upgrade, closing_does_not_wait) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "run", &warnings);
    options.close_timeout = 2 * PATIENCE;
    struct gradientd_run *run = trainer_open(&options);
    (void)!submit(run, 1);
    upgrade(1 << 12);
    double start = scratch_now();
    cr_expect_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
    cr_expect_lt(scratch_now() - start, PATIENCE);
}
