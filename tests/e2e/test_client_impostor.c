// What a process that is no daemon can do to a trainer: nothing but cost it the run.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "fixture.h"
#include "impostor.h"
#include "trainer.h"

static struct trainer_warnings warnings;

TestSuite(client_impostor, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static long most_resident_kib(void) {
    struct rusage usage;
    cr_assert_eq(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

// A message of 1 MiB that would take 32 once it is unpacked.
Test(client_impostor, a_message_that_explodes_is_refused) {
    enum { BUFFERS_KIB = 4 << 10 }; // the client's own, for a message each way
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "bomb", &warnings);
    struct gradientd_run *run;
    struct gradientd_error error;
    daemon_process_kill(&daemon_process);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_BOMB);
    long before_kib = most_resident_kib();
    cr_expect_eq(gradientd_open(&options, &run, &error), -EPROTO, "%s", error.text);
    long taken_kib = most_resident_kib() - before_kib;
    cr_expect_lt(taken_kib, BUFFERS_KIB, "opening took %ld KiB", taken_kib);
    impostor_stop(impostor);
}

static bool submits(struct gradientd_run *run, int64_t number) {
    float gradient[TRAINER_NUMEL];
    struct gradientd_step step = trainer_step(number);
    trainer_gradient(number, gradient);
    return trainer_submit(run, &step, gradient) != GRADIENTD_DETACHED;
}

struct training {
    struct gradientd_run *run;
    int64_t *step;
};

static bool is_refused(const void *context) {
    const struct training *training = context;
    return !submits(training->run, ++*training->step);
}

static void expect_line(const char *text) {
    cr_expect_gt(strlen(text), 300);
    for (; *text; text++)
        cr_assert(*text >= ' ' && *text < 0x7f, "byte 0x%x", (unsigned char)*text);
}

// Where it went away, it was one warning; refused at its return, none is added. What is said is one line either way.
Test(client_impostor, what_it_says_is_one_line) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "words", &warnings);
    options.max_stall = 0.0;
    struct gradientd_run *run = trainer_open(&options);
    int64_t step = 0;
    daemon_process_kill(&daemon_process);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_REFUSES);
    cr_assert(scratch_wait_until(is_refused, &(struct training){run, &step}, 20.0));
    cr_expect_eq(warnings.count, 1);
    expect_line(gradientd_last_error(run));
    cr_expect_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_DETACHED);
    struct gradientd_error error;
    cr_expect_eq(gradientd_open(&options, &run, &error), -EBADMSG);
    expect_line(error.text);
    impostor_stop(impostor);
}

// As where a daemon is restarted while a trainer is being set up: the run is opened with the one that follows.
Test(client_impostor, opening_outlives_the_end_of_a_daemon) {
    char next[DAEMON_PATH_BYTES + sizeof(".next")];
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "followed", &warnings);
    snprintf(next, sizeof(next), "%s.next", options.socket);
    cr_assert_eq(rename(options.socket, next), 0);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_YIELDS);
    struct gradientd_run *run = trainer_open(&options);
    cr_expect(submits(run, 1));
    cr_expect_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_OK);
    impostor_stop(impostor);
}

// What was met first is what is told.
Test(client_impostor, opening_tells_of_the_end_of_a_daemon) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "left", &warnings);
    struct gradientd_run *run;
    struct gradientd_error error;
    daemon_process_kill(&daemon_process);
    pid_t impostor = impostor_start(options.socket, IMPOSTOR_WELCOMES);
    cr_expect_eq(gradientd_open(&options, &run, &error), -ECONNRESET);
    cr_expect_str_eq(error.text, "the daemon went away before it sent Layout");
    cr_expect_null(run);
    impostor_stop(impostor);
}
