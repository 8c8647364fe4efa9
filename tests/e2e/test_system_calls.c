// System calls, counted one by one: a submitted step is one of the trainer's, which cannot block; and the daemon takes
// what a wake-up brings with a handful, however many steps that is.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"
#include "gradientd/client.h"
#include "tracer.h"

enum {
    STEPS = 30,
    GROUPS = 3,
    GROUP_ELEMS_MAX = 700000, // slots of two of them are copied past the caches
    SLOTS_TO_SPARE = STEPS,   // so that no step depends on how far the daemon is
};

TestSuite(system_calls, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

// ---- The trainer ----------------------------------------------------------------------------------------------------

enum delivery { SUBMIT, IN_PLACE };

struct scene {
    const char *name;
    uint64_t group_elems;
    enum gradientd_element_type type;
    enum delivery delivery;
    size_t n_scalars;
    bool absent; // one group has no gradient
    bool faulty; // an alert comes after the first steps, and nobody asks for it until the end
};

static double elements[GROUPS][GROUP_ELEMS_MAX];

enum { FAULTY_STEP = 5 };

static int take_step(struct gradientd_run *run, const struct scene *scene, int64_t number) {
    static const double rate = 1e-3;
    static const struct gradientd_scalar scalars[] = {{"train/loss", 0.5f}, {"train/accuracy", 0.25f}};
    const struct gradientd_step step = {.step = number,
                                        .learning_rates = &rate,
                                        .wall_time = 1.7e9 + (double)number,
                                        .scalars = scalars,
                                        .n_scalars = scene->n_scalars};
    const void *gradients[GROUPS] = {elements[0], scene->absent ? NULL : elements[1], elements[2]};
    const bool present[GROUPS] = {true, !scene->absent, true};
    if (scene->delivery == SUBMIT)
        return gradientd_submit(run, &step, gradients);
    return gradientd_acquire(run) ? gradientd_commit(run, &step, present) : GRADIENTD_SKIPPED;
}

// In a child that is traced. Each step lies between two marks.
static _Noreturn void train(const void *context) {
    const struct scene *scene = context;
    static const struct gradientd_parameter_group adam = {.beta2 = 0.999, .eps = 1e-8};
    struct gradientd_group groups[GROUPS] = {{.name = "a", .numel = scene->group_elems},
                                             {.name = "b", .numel = 5},
                                             {.name = "c", .numel = scene->group_elems}};
    struct gradientd_options options = gradientd_options_default();
    struct gradientd_run *run;

    options.logdir = directory, options.run = scene->name, options.socket = daemon_process.socket;
    options.groups = groups, options.n_groups = GROUPS;
    options.parameter_groups = &adam, options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.element_type = scene->type;
    options.inflight = SLOTS_TO_SPARE;
    if (gradientd_open(&options, &run, NULL) < 0)
        _exit(10);
    tracer_begin();
    for (int64_t number = 1; number <= STEPS; number++) {
        struct gradientd_alert alert;
        elements[1][0] = scene->faulty && number == FAULTY_STEP ? (double)NAN : 0.0;
        tracer_mark();
        int result = take_step(run, scene, number);
        int heard = scene->faulty ? 0 : gradientd_next_alert(run, &alert); // which costs nothing
        tracer_mark();
        if (scene->faulty && number == FAULTY_STEP)
            usleep(200000); // the alert comes meanwhile
        if (heard != 0)
            _exit(13);
        if (result != GRADIENTD_OK)
            _exit(11);
    }
    struct gradientd_alert alert;
    if (scene->faulty && (gradientd_next_alert(run, &alert) != 1 || alert.step != FAULTY_STEP))
        _exit(14);
    _exit(gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_OK ? 0 : 12);
}

// ---- The tracer -----------------------------------------------------------------------------------------------------

// Between one mark and the next: exactly one sendmsg that does not wait.
static void check_step(const struct scene *scene, pid_t pid, unsigned step) {
    struct __ptrace_syscall_info call;
    unsigned calls = 0;
    int status;

    for (;;) {
        cr_assert(tracer_next_entry(pid, &call, &status), "%s: the trainer ended in step %u", scene->name, step);
        if (tracer_is_mark(&call))
            break;
        calls++;
        cr_expect_eq(call.entry.nr, SYS_sendmsg, "%s, step %u: system call %llu", scene->name, step,
                     (unsigned long long)call.entry.nr);
        cr_expect(tracer_cannot_block(&call), "%s, step %u: a sendmsg that may wait", scene->name, step);
    }
    cr_expect_eq(calls, 1, "%s, step %u: %u system calls", scene->name, step, calls);
}

static void check_trainer(const struct scene *scene) {
    struct __ptrace_syscall_info call;
    unsigned steps = 0;
    int status;

    pid_t pid = tracer_start(train, scene);
    while (tracer_next_entry(pid, &call, &status))
        if (tracer_is_mark(&call))
            check_step(scene, pid, ++steps);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: wait status 0x%x", scene->name, (unsigned)status);
    cr_assert_eq(steps, STEPS, "%s: %u steps", scene->name, steps);
}

Test(system_calls, a_step_is_one_that_cannot_block) {
    static const struct scene scenes[] = {
        {"small", 100, GRADIENTD_F32, SUBMIT, 0, false, false},
        {"scalars", 100, GRADIENTD_F32, SUBMIT, 2, false, false},
        {"absent", 100, GRADIENTD_F32, SUBMIT, 0, true, false},
        {"in_place", 100, GRADIENTD_F32, IN_PLACE, 2, false, false},
        {"bf16", 100, GRADIENTD_BF16, SUBMIT, 0, false, false},
        {"double", 100, GRADIENTD_F64, SUBMIT, 0, false, false},
        {"large", 700000, GRADIENTD_F32, SUBMIT, 0, false, false},
        {"large_double", 700000, GRADIENTD_F64, SUBMIT, 0, false, false},
        {"large_bf16", 700000, GRADIENTD_BF16, SUBMIT, 0, true, false},
        {"alert", 100, GRADIENTD_F64, SUBMIT, 0, false, true},
    };
    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++)
        check_trainer(&scenes[i]);
}

// ---- The daemon -----------------------------------------------------------------------------------------------------

// Calls of the daemon's loop until it waits for more than a moment; the last of them is that wait.
static unsigned calls_until_idle(pid_t pid) {
    struct __ptrace_syscall_info call;
    unsigned calls = 0;
    int status;

    for (;;) {
        cr_assert(tracer_next_entry(pid, &call, &status), "the daemon ended");
        calls++;
        bool waits = call.entry.nr == SYS_epoll_pwait
#ifdef SYS_epoll_wait
                     || call.entry.nr == SYS_epoll_wait
#endif
            ;
        if (!waits || (int)call.entry.args[3] == 0)
            continue;
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL); // its return, if it comes
        for (int tries = 0; tries < 50; tries++) {
            if (waitpid(pid, &status, __WALL | WNOHANG) == pid)
                break;
            if (tries == 49)
                return calls;
            usleep(2000);
        }
    }
}

static struct gradientd_run *open_small_run(void) {
    static const struct gradientd_parameter_group adam = {.beta2 = 0.999, .eps = 1e-8};
    static const struct gradientd_group group = {.name = "a", .numel = 64};
    struct gradientd_options options = gradientd_options_default();
    struct gradientd_run *run;

    options.logdir = directory, options.run = "burst", options.socket = daemon_process.socket;
    options.groups = &group, options.n_groups = 1;
    options.parameter_groups = &adam, options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.inflight = 64;
    cr_assert_eq(gradientd_open(&options, &run, NULL), 0);
    return run;
}

Test(system_calls, the_daemon_takes_a_burst_with_a_handful) {
    enum { WARM_UP = 5, BURST = 60, MOST = 12 };
    struct gradientd_run *run = open_small_run();
    const void *gradient[] = {elements[0]};
    static const double rate = 1e-3;
    int status;

    for (int64_t step = 1; step <= WARM_UP; step++) {
        cr_assert_eq(gradientd_submit(run, &(struct gradientd_step){.step = step, .learning_rates = &rate}, gradient),
                     0);
        usleep(20000);
    }
    cr_assert_eq(ptrace(PTRACE_SEIZE, daemon_process.pid, NULL, PTRACE_O_TRACESYSGOOD), 0, "%s", strerror(errno));
    cr_assert_eq(ptrace(PTRACE_INTERRUPT, daemon_process.pid, NULL, NULL), 0);
    cr_assert_eq(waitpid(daemon_process.pid, &status, __WALL), daemon_process.pid);
    for (int64_t step = WARM_UP + 1; step <= WARM_UP + BURST; step++)
        cr_assert_eq(gradientd_submit(run, &(struct gradientd_step){.step = step, .learning_rates = &rate}, gradient),
                     0);
    unsigned calls = calls_until_idle(daemon_process.pid);
    cr_expect_leq(calls, MOST, "%u system calls for %d steps", calls, BURST);
    cr_expect_geq(calls, 2); // it read, and it waits again

    ptrace(PTRACE_INTERRUPT, daemon_process.pid, NULL, NULL);
    waitpid(daemon_process.pid, &status, __WALL);
    cr_assert_eq(ptrace(PTRACE_DETACH, daemon_process.pid, NULL, NULL), 0);
    cr_assert_eq(gradientd_close(run, GRADIENTD_SUCCESS), GRADIENTD_OK);
}
