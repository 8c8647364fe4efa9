// A daemon that dies and comes back: the run goes on where it was, and its file is the one it would have been.
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "event_values.h"
#include "fixture.h"
#include "impostor.h"
#include "trainer.h"

enum { STEPS = 60 };

static struct trainer_warnings warnings;

TestSuite(client_return, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static struct gradientd_run *open_run(const char *name, char path[512]) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, &warnings);
    options.optimizer.rule = GRADIENTD_AMSGRAD;
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    return run;
}

static void restart(void (*end)(struct daemon_process *daemon)) {
    end(&daemon_process);
    daemon_process_start(&daemon_process, directory);
}

static void expect_undisturbed(const char *path) {
    char alone[512];
    struct gradientd_run *run = open_run("alone", alone);
    trainer_submit_steps(run, 1, STEPS);
    trainer_close(run);
    scratch_expect_same(path, alone);
}

Test(client_return, killed_again_and_again) {
    char path[512];
    struct gradientd_run *run = open_run("killed", path);
    for (int64_t step = 1; step <= STEPS; step++) {
        trainer_submit_steps(run, step, step);
        if (step % 7 == 1)
            restart(daemon_process_kill);
    }
    cr_expect_eq(gradientd_skipped(run), 0);
    trainer_close(run);
    cr_expect_eq(warnings.count, 1, "%u warnings", warnings.count);
    cr_expect(strstr(warnings.text, "went away"), "%s", warnings.text);
    expect_undisturbed(path);
}

Test(client_return, terminated_and_started_again) {
    char path[512];
    struct gradientd_run *run = open_run("terminated", path);
    trainer_submit_steps(run, 1, 20);
    restart(daemon_process_stop);
    trainer_submit_steps(run, 21, STEPS);
    trainer_close(run);
    expect_undisturbed(path);
}

// Steps in the slots that are free, and values, are kept until the daemon is back; the other steps are skipped and
// counted.
Test(client_return, what_the_meantime_brings_is_kept) {
    const struct gradientd_scalar scalar = {"validation/loss", 0.5f};
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "meantime", &warnings);
    unsigned taken = 0;
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_freeze(&daemon_process); // so that no slot comes back before the kill
    for (int64_t step = 1; step <= 2 * STEPS; step++) {
        float gradient[TRAINER_NUMEL];
        trainer_gradient(step, gradient);
        struct gradientd_step described = trainer_step(step);
        taken += trainer_submit(run, &described, gradient) == GRADIENTD_OK;
        cr_assert_eq(gradientd_scalars(run, step, TRAINER_WALL_TIME, &scalar, 1), GRADIENTD_OK);
        if (step == 2)
            daemon_process_kill(&daemon_process);
    }
    cr_expect_eq(taken, TRAINER_MAX_LAG + 1 + 2, "%u steps for %d slots", taken, TRAINER_MAX_LAG + 1 + 2);
    cr_expect_eq(gradientd_skipped(run), 2 * STEPS - taken);
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    daemon_process_start(&daemon_process, directory);
    trainer_close(run);

    struct event_values values;
    event_values_read(path, &values);
    cr_expect_eq(event_values_count(&values, "gradient/norm"), taken);
    cr_expect_eq(event_values_count(&values, "validation/loss"), 2 * STEPS);
    cr_expect_eq(values.stops, 1);
    event_values_free(&values);
}

Test(client_return, closing_waits_for_the_daemon_to_finish_the_file) {
    char path[512];
    struct gradientd_run *run = open_run("closing", path);
    trainer_submit_steps(run, 1, STEPS);
    restart(daemon_process_kill);
    trainer_close(run); // the first call that learns of it
    expect_undisturbed(path);
}

// The file is the daemon's own, in its state directory: the next one opens it again.
Test(client_return, killed_with_a_file_in_the_state_directory) {
    char path[512];
    struct gradientd_options options = trainer_options(daemon_process.socket, NULL, "state", &warnings);
    options.optimizer.rule = GRADIENTD_AMSGRAD;
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    for (int64_t step = 1; step <= STEPS; step += 20) {
        trainer_submit_steps(run, step, step + 19);
        restart(daemon_process_kill);
    }
    trainer_close(run);
    expect_undisturbed(path);
}

static void *close_run(void *run) {
    trainer_close(run);
    return NULL;
}

// What is committed is not sent again, and the file that CloseRun ended is finished by whoever comes.
Test(client_return, killed_while_it_is_being_closed) {
    char path[512];
    for (int i = 0; i < 20; i++) {
        char name[16];
        pthread_t closer;
        snprintf(name, sizeof(name), "run%d", i);
        struct gradientd_run *run = open_run(name, path);
        trainer_submit_steps(run, 1, STEPS);
        cr_assert_eq(pthread_create(&closer, NULL, close_run, run), 0);
        for (volatile int spin = 0; spin < i * 20000; spin++)
            ;
        restart(daemon_process_kill);
        pthread_join(closer, NULL);
        expect_undisturbed(path);
    }
}

static void submit_for(struct gradientd_run *run, double seconds) {
    static const struct timespec pause = {.tv_nsec = 20000000};
    double end = scratch_now() + seconds;
    for (int64_t step = 1; scratch_now() < end; step++) {
        float gradient[TRAINER_NUMEL];
        struct gradientd_step described = trainer_step(step);
        trainer_gradient(step, gradient);
        cr_assert_neq(trainer_submit(run, &described, gradient), GRADIENTD_DETACHED);
        nanosleep(&pause, NULL);
    }
}

// Somebody took the connection meanwhile, and is gone as well: how long a trainer that closes waits for another daemon
// counts from then, not from when the first one was lost.
Test(client_return, closing_waits_for_the_daemon_that_follows_another) {
    static const double longer_than_a_restart = 3.2;
    static const struct timespec a_while = {.tv_nsec = 300000000};
    pthread_t closer;
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "second", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_kill(&daemon_process);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_SILENCE);
    submit_for(run, longer_than_a_restart);
    impostor_stop(impostor);
    cr_assert_eq(pthread_create(&closer, NULL, close_run, run), 0);
    nanosleep(&a_while, NULL); // in which it finds nobody
    daemon_process_start(&daemon_process, directory);
    pthread_join(closer, NULL);
}

// The first daemon that came back was gone before it was told of the run, which is not the end of coming back.
Test(client_return, daemon_that_dies_after_its_welcome_is_followed_by_another) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "welcome", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    daemon_process_kill(&daemon_process);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_WELCOMES);
    submit_for(run, 0.3);
    impostor_stop(impostor);
    daemon_process_start(&daemon_process, directory);
    trainer_close(run);
}
