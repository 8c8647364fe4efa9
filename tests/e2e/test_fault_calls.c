// A step's system calls while something is wrong with the daemon: as many as ever, one or, while it is away, none; on
// top of them what it takes to look for it now and then. None of them can block.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"
#include "impostor.h"
#include "tracer.h"
#include "trainer.h"

enum {
    STEPS = 600, // of 1 ms and more: the way back is tried some seven times, and a socket fills up
    DISTURBED = 10,
    MENDED = 200,
    SETTLED = 500,
    BUSY_MAX = 40, // steps that do more where the way back is looked for: attempts, each of a few steps
};

struct scene {
    const char *name;
    size_t n_scalars;
    void (*disturb)(void);
    void (*mend)(void);
    bool is_lost; // one warning, and the way back is looked for
    bool returns; // from step SETTLED on all is as before
};

static pid_t impostor;

TestSuite(fault_calls, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

// ---- The trainer ----------------------------------------------------------------------------------------------------

static void redirect_warnings(void) {
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/warnings", directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
        _exit(10);
}

// In a child that is traced. Each step lies between two marks.
static void train(const void *context) {
    static const struct gradientd_scalar loss = {"train/loss", 0.5f};
    const struct scene *scene = context;
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, scene->name, NULL);
    struct gradientd_run *run;
    float gradient[TRAINER_NUMEL];

    options.max_stall = 0.0;
    redirect_warnings();
    if (gradientd_open(&options, &run, NULL) < 0)
        _exit(11);
    tracer_begin();
    for (int64_t number = 1; number <= STEPS; number++) {
        struct gradientd_step step = trainer_step(number);
        step.scalars = &loss;
        step.n_scalars = scene->n_scalars;
        trainer_gradient(number, gradient);
        tracer_mark();
        int result = trainer_submit(run, &step, gradient);
        tracer_mark();
        if (result != GRADIENTD_OK && result != GRADIENTD_SKIPPED)
            _exit(12);
        usleep(1000);
    }
    _exit(0);
}

// ---- The tracer -----------------------------------------------------------------------------------------------------

// The calls between one mark and the next.
static unsigned count_calls(const struct scene *scene, pid_t pid, unsigned step) {
    struct __ptrace_syscall_info call;
    unsigned calls = 0;
    int status;

    for (;; calls++) {
        cr_assert(tracer_next_entry(pid, &call, &status), "%s: the trainer ended in step %u", scene->name, step);
        if (tracer_is_mark(&call))
            return calls;
        cr_expect(tracer_cannot_block(&call), "%s, step %u: system call %llu (%llx, %llx, %llx, %llx)", scene->name,
                  step, (unsigned long long)call.entry.nr, (unsigned long long)call.entry.args[0],
                  (unsigned long long)call.entry.args[1], (unsigned long long)call.entry.args[2],
                  (unsigned long long)call.entry.args[3]);
    }
}

static size_t count_warnings(void) {
    char path[SCRATCH_PATH_BYTES + 16];
    size_t lines = 0;
    snprintf(path, sizeof(path), "%s/warnings", directory);
    struct scratch_bytes text = scratch_read(path);
    for (size_t i = 0; i < text.bytes; i++)
        lines += text.data[i] == '\n';
    free(text.data);
    return lines;
}

static void check_scene(const struct scene *scene) {
    struct __ptrace_syscall_info call;
    unsigned step = 0, busy = 0;
    int status;

    pid_t pid = tracer_start(train, scene);
    while (tracer_next_entry(pid, &call, &status)) {
        if (!tracer_is_mark(&call))
            continue;
        step++;
        if (step == DISTURBED && scene->disturb)
            scene->disturb();
        if (step == MENDED && scene->mend)
            scene->mend();
        unsigned calls = count_calls(scene, pid, step);
        if (step < DISTURBED || !scene->is_lost || (step >= SETTLED && scene->returns))
            cr_expect_eq(calls, 1, "%s, step %u: %u system calls", scene->name, step, calls);
        busy += calls > 1;
    }
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x", scene->name, (unsigned)status);
    cr_assert_eq(step, STEPS, "%s: %u steps", scene->name, step);
    cr_expect_leq(busy, scene->is_lost ? BUSY_MAX : 0, "%s: %u steps with more than one system call", scene->name,
                  busy);
    cr_expect_eq(count_warnings(), scene->is_lost, "%s: %zu warnings", scene->name, count_warnings());
}

// ---- What happens to the daemon -------------------------------------------------------------------------------------

static void freeze(void) {
    daemon_process_freeze(&daemon_process);
}

static void thaw(void) {
    daemon_process_thaw(&daemon_process);
}

static void end(void) {
    daemon_process_kill(&daemon_process);
}

static void start(void) {
    daemon_process_start(&daemon_process, directory);
}

static void replace(enum impostor_manner manner) {
    end();
    impostor = impostor_start(daemon_process.socket, manner);
}

static void say_garbage(void) {
    replace(IMPOSTOR_GARBAGE);
}

static void be_silent(void) {
    replace(IMPOSTOR_SILENCE);
}

static void close_at_once(void) {
    replace(IMPOSTOR_CLOSES);
}

// One of which no one listens: its backlog is soon full.
static void be_stopped(void) {
    replace(IMPOSTOR_SILENCE);
    kill(impostor, SIGSTOP);
}

static void check_scenes(const struct scene *scenes, size_t n_scenes) {
    for (size_t i = 0; i < n_scenes; i++) {
        check_scene(&scenes[i]);
        if (impostor > 0)
            impostor_stop(impostor);
        impostor = 0;
        if (daemon_process.pid == 0)
            start();
    }
}

Test(fault_calls, one_a_step_while_the_daemon_runs_or_stands_still) {
    static const struct scene scenes[] = {
        {.name = "running"},
        {.name = "running_scalars", .n_scalars = 1},
        {.name = "stopped", .disturb = freeze, .mend = thaw},
        {.name = "stopped_scalars", .n_scalars = 1, .disturb = freeze, .mend = thaw},
        {.name = "stopped_for_long", .n_scalars = 1, .disturb = freeze},
    };
    check_scenes(scenes, sizeof(scenes) / sizeof(scenes[0]));
    thaw();
}

Test(fault_calls, one_or_none_a_step_while_the_daemon_is_away) {
    static const struct scene scenes[] = {
        {.name = "killed", .disturb = end, .is_lost = true},
        {.name = "killed_scalars", .n_scalars = 1, .disturb = end, .is_lost = true},
        {.name = "back", .disturb = end, .mend = start, .is_lost = true, .returns = true},
        {.name = "back_scalars", .n_scalars = 1, .disturb = end, .mend = start, .is_lost = true, .returns = true},
    };
    check_scenes(scenes, sizeof(scenes) / sizeof(scenes[0]));
}

Test(fault_calls, one_or_none_a_step_while_an_impostor_is_there) {
    static const struct scene scenes[] = {
        {.name = "garbage", .n_scalars = 1, .disturb = say_garbage, .is_lost = true},
        {.name = "silence", .n_scalars = 1, .disturb = be_silent, .is_lost = true},
        {.name = "closes", .n_scalars = 1, .disturb = close_at_once, .is_lost = true},
        {.name = "impostor_stopped", .n_scalars = 1, .disturb = be_stopped, .is_lost = true},
    };
    check_scenes(scenes, sizeof(scenes) / sizeof(scenes[0]));
}
