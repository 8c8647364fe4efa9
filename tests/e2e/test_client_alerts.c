// What a trainer hears of the rules that watch its run: polled, once each, whatever way elements travel and whatever
// becomes of the daemon; and what the log says.
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

static const double HEARD_SECONDS = 10.0;

static struct trainer_warnings warnings;

TestSuite(client_alerts, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static struct gradientd_options alert_options(const char *run) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, run, &warnings);
    options.thresholds.cosine_mean = -(double)INFINITY; // the small trainer's gradients are no training's
    options.thresholds.silence_intervals = (double)INFINITY;
    return options;
}

static void submit(struct gradientd_run *run, int64_t number, float bias) {
    float gradient[TRAINER_NUMEL];
    struct gradientd_step step = trainer_step(number);
    trainer_gradient(number, gradient);
    gradient[TRAINER_NUMEL - 1] += bias;
    cr_assert_eq(trainer_submit(run, &step, gradient), GRADIENTD_OK, "step %lld", (long long)number);
}

// A step with something that is not finite in group layer/bias where `faulty`.
static void take(struct gradientd_run *run, int64_t number, bool faulty) {
    submit(run, number, faulty ? NAN : 0.0f);
}

static void pause_ms(long milliseconds) {
    nanosleep(&(struct timespec){.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000}, NULL);
}

static struct gradientd_alert hear(struct gradientd_run *run) {
    struct gradientd_alert alert;
    double deadline = scratch_now() + HEARD_SECONDS;
    int heard;
    while ((heard = gradientd_next_alert(run, &alert)) == 0) {
        cr_assert_lt(scratch_now(), deadline, "no alert comes");
        pause_ms(2);
    }
    cr_assert_eq(heard, 1);
    return alert;
}

static void expect_alert(struct gradientd_run *run, const char *rule, int64_t step, bool onset, const char *group,
                         const char *text) {
    struct gradientd_alert alert = hear(run);
    cr_expect_str_eq(alert.rule, rule);
    cr_expect_eq(alert.step, step, "%s at step %lld", alert.rule, (long long)alert.step);
    cr_expect_eq(alert.onset, onset);
    cr_expect_str_eq(alert.group, group);
    cr_expect(strstr(alert.text, text), "%s", alert.text);
}

static void expect_none(struct gradientd_run *run) {
    struct gradientd_alert alert;
    cr_expect_eq(gradientd_next_alert(run, &alert), 0);
}

// A fault at step 5, which is over at 21, and nothing else.
static void train_with_a_fault(struct gradientd_run *run, bool polls_between) {
    for (int64_t number = 1; number <= 30; number++) {
        take(run, number, number == 5);
        if (polls_between && number == 5)
            expect_alert(run, "non_finite", 5, true, "layer/bias", "Step 5: 1 element");
    }
    if (!polls_between)
        expect_alert(run, "non_finite", 5, true, "layer/bias", "Step 5: 1 element");
    expect_alert(run, "non_finite", 21, false, "layer/bias", "over");
    expect_none(run);
}

struct log_lines {
    const char *text;
    size_t count;
};

static size_t count_in_log(const char *text) {
    struct scratch_bytes log = scratch_read(daemon_process.log);
    size_t count = 0, text_bytes = strlen(text);
    const uint8_t *at = log.data, *end = log.data + log.bytes;
    for (; at && (at = memmem(at, (size_t)(end - at), text, text_bytes)); at++)
        count++;
    free(log.data);
    return count;
}

static bool log_has(const void *context) {
    const struct log_lines *lines = context;
    return count_in_log(lines->text) >= lines->count;
}

// The log comes to hold `text` so many times, and no more.
static void expect_in_log(const char *text, size_t count) {
    const struct log_lines lines = {text, count};
    cr_expect(scratch_wait_until(log_has, &lines, HEARD_SECONDS), "%s", text);
    cr_expect_eq(count_in_log(text), count, "%s: %zu times", text, count_in_log(text));
}

Test(client_alerts, in_shared_memory) {
    struct gradientd_options options = alert_options("mapped");
    for (int polls = 0; polls < 2; polls++) {
        struct gradientd_run *run = trainer_open(&options);
        expect_none(run);
        train_with_a_fault(run, polls);
        trainer_close(run);
    }
    expect_in_log("run mapped: alert non_finite: Step 5: 1 element", 2);
    expect_in_log("run mapped: alert non_finite: Step 21: over", 2);
    expect_in_log("alert", 4);
    cr_expect_eq(warnings.count, 0, "%s", warnings.text);
}

Test(client_alerts, inline) {
    for (enum gradientd_transport transport = GRADIENTD_INLINE; transport <= GRADIENTD_INLINE_DEFLATED; transport++) {
        struct gradientd_options options = alert_options("inline");
        options.transport = transport;
        struct gradientd_run *run = trainer_open(&options);
        train_with_a_fault(run, true);
        trainer_close(run);
    }
}

Test(client_alerts, of_a_private_daemon) {
    struct gradientd_options options = alert_options("private");
    char nobody[SCRATCH_PATH_BYTES + 16];
    snprintf(nobody, sizeof(nobody), "%s/nobody", directory);
    setenv("GRADIENTD_SOCKET", nobody, 1);
    options.socket = NULL;
    options.private_daemon = true;
    options.daemon_path = daemon_process_program();
    struct gradientd_run *run = trainer_open(&options);
    train_with_a_fault(run, false);
    trainer_close(run);
}

Test(client_alerts, thresholds_reach_the_daemon) {
    struct gradientd_options options = alert_options("thresholds");
    options.thresholds.zero_group_steps = 7;
    struct gradientd_run *run = trainer_open(&options);
    static const float zero_bias[TRAINER_NUMEL] = {1.0f, -1.0f, 0.5f};
    for (int64_t number = 1; number <= 10; number++) {
        struct gradientd_step step = trainer_step(number);
        cr_assert_eq(trainer_submit(run, &step, zero_bias), GRADIENTD_OK);
    }
    expect_alert(run, "zero_group", 7, true, "layer/bias", "for 7 steps, the threshold is 7");
    trainer_close(run);
}

Test(client_alerts, a_threshold_outside_its_limits_is_refused) {
    struct gradientd_options options = alert_options("refused");
    struct gradientd_run *run;
    struct gradientd_error error;
    options.thresholds.rms = -1.0;
    cr_expect_lt(gradientd_open(&options, &run, &error), 0);
    cr_expect(strstr(error.text, "thresholds.rms is -1"), "%s", error.text);
}

Test(client_alerts, are_not_for_a_forked_child) {
    struct gradientd_options options = alert_options("forked");
    struct gradientd_run *run = trainer_open(&options);
    int status;
    take(run, 1, true);
    expect_in_log("alert", 1); // it has come, or comes now
    pause_ms(100);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        struct gradientd_alert alert;
        _exit(gradientd_next_alert(run, &alert));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(status, 0, "wait status 0x%x", (unsigned)status);
    expect_alert(run, "non_finite", 1, true, "layer/bias", "Step 1");
    trainer_close(run);
}

Test(client_alerts, arguments) {
    struct gradientd_options options = alert_options("arguments");
    struct gradientd_alert alert;
    struct gradientd_run *run = trainer_open(&options);
    cr_expect_eq(gradientd_next_alert(NULL, &alert), 0);
    cr_expect_lt(gradientd_next_alert(run, NULL), 0);
    trainer_close(run);
}

// 400 onsets and clearings, none of which is read: the trainer loses alerts, nothing else, and the log is not flooded.
Test(client_alerts, a_trainer_that_does_not_listen) {
    enum { FAULTS = 200, APART = 20, LAST = FAULTS * APART };
    struct gradientd_options options = alert_options("deaf");
    struct gradientd_run *run = trainer_open(&options);
    for (int64_t number = 1; number <= LAST; number++)
        take(run, number, number % APART == 1);
    cr_expect_eq(gradientd_skipped(run), 0);
    struct gradientd_alert alert;
    int heard = 0;
    while (gradientd_next_alert(run, &alert) == 1)
        heard++;
    cr_expect(heard > 0 && heard <= 16, "%d", heard); // of those that were sent the last 16
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    trainer_close(run);
    cr_expect_eq(warnings.count, 0, "%s", warnings.text);
    expect_in_log("alert non_finite: Step", 64);
    expect_in_log("alert non_finite: 400 times in all, of which 64 were written", 1);
}

// The end of a daemon is found behind alerts that nobody has read.
Test(client_alerts, a_daemons_end_behind_unread_alerts) {
    enum { LAST = 4000 };
    struct gradientd_options options = alert_options("end");
    struct gradientd_run *run = trainer_open(&options);
    for (int64_t number = 1; number <= LAST; number++)
        take(run, number, number % 20 == 1);
    daemon_process_stop(&daemon_process); // which says Released, and goes
    daemon_process_start(&daemon_process, directory);
    for (int64_t number = LAST + 1; number <= LAST + 30; number++)
        take(run, number, number == LAST + 30);
    struct gradientd_alert alert;
    do
        alert = hear(run);
    while (alert.step < LAST + 30);
    cr_expect(strstr(alert.text, "Step 4030"), "%s", alert.text);
    trainer_close(run);
}

// ---- The daemon's death ---------------------------------------------------------------------------------------------

static void train_killing(struct gradientd_run *run, const int64_t *kills) {
    for (int64_t number = 1; number <= 40; number++) {
        take(run, number, number == 5 || number == 30);
        if (*kills == number) {
            daemon_process_kill(&daemon_process);
            daemon_process_start(&daemon_process, directory);
            kills++;
        }
    }
}

Test(client_alerts, killed_around_onsets_and_clearings) {
    static const int64_t none[] = {0}, kills[] = {4, 5, 6, 20, 21, 22, 29, 30, 31, 0};
    char paths[2][512];
    for (int killed = 0; killed < 2; killed++) {
        struct gradientd_options options = alert_options(killed ? "killed" : "alone");
        struct gradientd_run *run = trainer_open(&options);
        snprintf(paths[killed], sizeof(paths[killed]), "%s", gradientd_event_path(run));
        train_killing(run, killed ? kills : none);
        trainer_close(run);
    }
    scratch_expect_same(paths[1], paths[0]);
}

// The daemon dies after the commit, perhaps ahead of the Alert: it comes once at least, and once more at most.
Test(client_alerts, of_the_last_step_come_again_after_a_kill) {
    struct gradientd_options options = alert_options("again");
    struct gradientd_run *run = trainer_open(&options);
    take(run, 1, false);
    take(run, 2, true);
    expect_alert(run, "non_finite", 2, true, "layer/bias", "Step 2");
    daemon_process_kill(&daemon_process);
    daemon_process_start(&daemon_process, directory);
    for (int64_t number = 3; number <= 10; number++) { // still the same fault
        take(run, number, true);
        pause_ms(20);
    }
    expect_alert(run, "non_finite", 2, true, "layer/bias", "Step 2");
    daemon_process_kill(&daemon_process);
    daemon_process_start(&daemon_process, directory);
    for (int64_t number = 11; number <= 20; number++) {
        take(run, number, false);
        pause_ms(20);
    }
    expect_none(run);
    expect_in_log("alert", 0); // what another daemon has logged is not logged again
    trainer_close(run);
}

// ---- Silence --------------------------------------------------------------------------------------------------------

static void train_evenly(struct gradientd_run *run, int64_t first, int64_t last) {
    for (int64_t number = first; number <= last; number++) {
        take(run, number, false);
        pause_ms(10);
    }
}

static void fall_silent(enum gradientd_transport transport, const char *name) {
    char said[128];
    struct gradientd_options options = alert_options(name);
    options.transport = transport;
    options.thresholds.silence_intervals = 0.0; // the default
    struct gradientd_run *run = trainer_open(&options);
    train_evenly(run, 1, 20);
    expect_none(run);
    double start = scratch_now();
    expect_alert(run, "silence", 20, true, "", "No snapshot has come for");
    cr_expect_geq(scratch_now() - start, 0.8, "%f", scratch_now() - start); // a second, but for the last pause
    pause_ms(1500);
    expect_none(run); // said once
    train_evenly(run, 21, 22);
    expect_alert(run, "silence", 21, false, "", "Step 21: over");
    expect_none(run);
    expect_alert(run, "silence", 22, true, "", "No snapshot has come for"); // and again
    snprintf(said, sizeof(said), "run %s: alert silence", name);
    expect_in_log(said, 3);

    char path[512];
    struct event_values values;
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    trainer_close(run);
    event_values_read(path, &values);
    cr_expect_eq(event_values_count(&values, "alerts/silence"), 0);
    event_values_free(&values);
}

Test(client_alerts, silence) {
    fall_silent(GRADIENTD_SHARED_MEMORY, "mapped");
}

Test(client_alerts, silence_of_an_inline_run) {
    fall_silent(GRADIENTD_INLINE, "inline");
}

Test(client_alerts, no_silence_of_a_run_that_has_hardly_begun_or_wants_none_or_has_ended) {
    struct gradientd_options options = alert_options("off");
    struct gradientd_run *off = trainer_open(&options);
    options.thresholds.silence_intervals = 0.0;
    options.run = "begun";
    struct gradientd_run *begun = trainer_open(&options);
    options.run = "ended";
    struct gradientd_run *ended = trainer_open(&options);
    train_evenly(off, 1, 30);
    train_evenly(begun, 1, 16); // 15 intervals
    train_evenly(ended, 1, 30);
    trainer_close(ended);
    pause_ms(1500);
    expect_none(off);
    expect_none(begun);
    expect_in_log("silence", 0);
    trainer_close(off);
    trainer_close(begun);
}

// A standstill of the daemon's own is no silence of the trainer's.
Test(client_alerts, no_silence_while_the_daemon_stood_still) {
    struct gradientd_options options = alert_options("frozen");
    options.thresholds.silence_intervals = 0.0;
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    train_evenly(run, 1, 20);
    daemon_process_freeze(&daemon_process);
    pause_ms(1500);
    float gradient[TRAINER_NUMEL];
    struct gradientd_step step = trainer_step(21);
    trainer_gradient(21, gradient);
    cr_expect_eq(trainer_submit(run, &step, gradient), GRADIENTD_OK);
    daemon_process_thaw(&daemon_process);
    pause_ms(100);
    expect_none(run);
    expect_in_log("silence", 0);
    trainer_close(run);
}
