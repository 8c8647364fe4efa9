// A real training loop, examples/digits, without gradientd and with a daemon that runs, is stopped, killed, restarted
// every second or replaced by what is none: the weights are the same to the last bit, it says one line at most, and it
// never waits. $GRADIENTD_TEST_STEPS: of the one with restarts.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "impostor.h"
#include "process_usage.h"

enum { STEPS = 2500, STEPS_WITH_RESTARTS = 8000, WAITS_MAX = 20, PATH_BYTES = SCRATCH_PATH_BYTES + 32 };

// Generous: a training takes seconds.
static const double PROGRESS_SECONDS = 300.0;

// Less than close_timeout: whoever is there at the end is soon found, and so is that there is nobody.
static const double CLOSE_SECONDS = 9.0;

TestSuite(training, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 600);

// ---- The trainer ----------------------------------------------------------------------------------------------------

struct trainer {
    pid_t pid;
    int pidfd;
    const char *name;
    long steps;
    char output[PATH_BYTES], warnings[PATH_BYTES], weights[PATH_BYTES];
};

static void redirect(int fd, const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || dup2(file, fd) < 0)
        _exit(126);
}

static struct trainer start_trainer(const char *name, bool alone, long steps) {
    struct trainer trainer = {.name = name, .steps = steps};
    const char *program = getenv("GRADIENTD_TEST_DIGITS");
    char number[24];

    cr_assert(program, "GRADIENTD_TEST_DIGITS must name the example");
    snprintf(trainer.output, PATH_BYTES, "%s/%s.output", directory, name);
    snprintf(trainer.warnings, PATH_BYTES, "%s/%s.warnings", directory, name);
    snprintf(trainer.weights, PATH_BYTES, "%s/%s.weights", directory, name);
    snprintf(number, sizeof(number), "%ld", steps);
    trainer.pid = fork();
    cr_assert_geq(trainer.pid, 0);
    if (trainer.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        redirect(STDOUT_FILENO, trainer.output);
        redirect(STDERR_FILENO, trainer.warnings);
        execl(program, program, "--steps", number, "--weights", trainer.weights, "--socket", daemon_process.socket,
              "--logdir", directory, "--run", name, "--max-stall", "0", alone ? "--no-gradientd" : NULL, (char *)NULL);
        _exit(127);
    }
    trainer.pidfd = (int)syscall(SYS_pidfd_open, trainer.pid, 0);
    cr_assert_geq(trainer.pidfd, 0, "pidfd_open: %s", strerror(errno));
    return trainer;
}

static size_t count_lines(const char *path) {
    size_t lines = 0;
    if (access(path, R_OK) < 0)
        return 0;
    struct scratch_bytes text = scratch_read(path);
    for (size_t i = 0; i < text.bytes; i++)
        lines += text.data[i] == '\n';
    free(text.data);
    return lines;
}

struct progress {
    const struct trainer *trainer;
    size_t tenths;
};

// Whether the training has got that far; it says so at every tenth.
static bool has_come_to(const void *context) {
    const struct progress *progress = context;
    return count_lines(progress->trainer->output) >= progress->tenths ||
           scratch_wait_readable(progress->trainer->pidfd, 0.0);
}

static void wait_for(const struct trainer *trainer, size_t tenths) {
    struct progress progress = {trainer, tenths};
    cr_assert(scratch_wait_until(has_come_to, &progress, PROGRESS_SECONDS), "%s: the training stands still",
              trainer->name);
}

// It has ended well, having said `warnings` lines.
static void expect_ended(const struct trainer *trainer, size_t warnings) {
    int status;
    cr_assert(scratch_wait_readable(trainer->pidfd, PROGRESS_SECONDS), "%s does not end", trainer->name);
    cr_assert_eq(waitpid(trainer->pid, &status, 0), trainer->pid);
    close(trainer->pidfd);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x", trainer->name, (unsigned)status);
    cr_expect_eq(count_lines(trainer->warnings), warnings, "%s: %zu warnings", trainer->name,
                 count_lines(trainer->warnings));
}

static void expect_weights_as_alone(const struct trainer *trainer) {
    struct trainer alone = start_trainer("alone", true, trainer->steps);
    expect_ended(&alone, 0);
    scratch_expect_same(trainer->weights, alone.weights);
}

// ---- The cases ------------------------------------------------------------------------------------------------------

// Trains with what `disturb` does after a tenth and `mend` does when all steps are done.
static void train(const char *name, void (*disturb)(void), void (*mend)(void), size_t warnings) {
    struct trainer trainer = start_trainer(name, false, STEPS);
    wait_for(&trainer, 1);
    uint64_t waits = process_usage_waits(trainer.pid);
    if (disturb)
        disturb();
    wait_for(&trainer, 9);
    waits = process_usage_waits(trainer.pid) - waits;
    cr_expect_leq(waits, WAITS_MAX, "%s: %llu waits", name, (unsigned long long)waits);
    wait_for(&trainer, 10);
    double all_trained = scratch_now();
    if (mend)
        mend();
    expect_ended(&trainer, warnings);
    double closing_seconds = scratch_now() - all_trained;
    cr_expect_lt(closing_seconds, CLOSE_SECONDS, "%s: closing took %f s", name, closing_seconds);
    expect_weights_as_alone(&trainer);
}

Test(training, daemon_running) {
    train("running", NULL, NULL, 0);
}

static void freeze(void) {
    daemon_process_freeze(&daemon_process);
}

static void thaw(void) {
    daemon_process_thaw(&daemon_process);
}

Test(training, daemon_stopped) {
    train("stopped", freeze, thaw, 0);
}

static void end(void) {
    daemon_process_kill(&daemon_process);
}

Test(training, daemon_killed) {
    train("killed", end, NULL, 1);
}

static pid_t impostor;

static void replace(enum impostor_manner manner) {
    end();
    impostor = impostor_start(daemon_process.socket, manner);
}

static void leave(void) { // so that the trainer need not wait for close_timeout
    impostor_stop(impostor);
}

static void say_garbage(void) {
    replace(IMPOSTOR_GARBAGE);
}

Test(training, daemon_replaced_by_what_sends_garbage) {
    train("garbage", say_garbage, leave, 1);
}

static void be_silent(void) {
    replace(IMPOSTOR_SILENCE);
}

Test(training, daemon_replaced_by_what_never_answers) {
    train("silence", be_silent, leave, 1);
}

static void close_at_once(void) {
    replace(IMPOSTOR_CLOSES);
}

Test(training, daemon_replaced_by_what_closes_at_once) {
    train("closes", close_at_once, leave, 1);
}

static long steps_with_restarts(void) {
    const char *given = getenv("GRADIENTD_TEST_STEPS");
    return given ? strtol(given, NULL, 10) : STEPS_WITH_RESTARTS;
}

// Its event file is whole as well: the last daemon goes on with it.
Test(training, daemon_restarted_every_second) {
    struct trainer trainer = start_trainer("restarted", false, steps_with_restarts());
    unsigned restarts = 0;
    wait_for(&trainer, 1);
    uint64_t waits = process_usage_waits(trainer.pid);
    while (count_lines(trainer.output) < 9) {
        daemon_process_kill(&daemon_process);
        daemon_process_start(&daemon_process, directory);
        restarts++;
        if (scratch_wait_readable(trainer.pidfd, 1.0))
            break;
    }
    waits = process_usage_waits(trainer.pid) - waits;
    cr_expect_leq(waits, WAITS_MAX, "%llu waits", (unsigned long long)waits);
    expect_ended(&trainer, 1);
    expect_weights_as_alone(&trainer);
    cr_expect_geq(restarts, 2);
    cr_log_info("%u restarts", restarts);
}
