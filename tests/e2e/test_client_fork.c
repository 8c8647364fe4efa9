// A trainer that forks, and one that goes without closing its run.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "trainer.h"

static struct trainer_warnings warnings;

TestSuite(client_fork, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static int submit_one(struct gradientd_run *run, int64_t i) {
    float gradient[TRAINER_NUMEL];
    trainer_gradient(i, gradient);
    struct gradientd_step step = trainer_step(i);
    return trainer_submit(run, &step, gradient);
}

// Whether this process has a run's memory mapped, which a child would keep from being freed.
static bool maps_shared_memory(void) {
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    cr_assert(maps);
    while (fgets(line, sizeof(line), maps))
        found |= strstr(line, "memfd:gradientd") != NULL;
    fclose(maps);
    return found;
}

// What a forked child finds when it uses the parent's run: a bit for each call that is not inert.
static int use_in_child(struct gradientd_run *run) {
    const struct gradientd_scalar scalar = {"child", 1.0f};
    struct gradientd_step step = trainer_step(1000);
    int wrong = submit_one(run, 1000) != GRADIENTD_DETACHED;
    wrong |= (gradientd_commit(run, &step, NULL) != GRADIENTD_DETACHED) << 1;
    wrong |= (gradientd_acquire(run) != NULL) << 2;
    wrong |= (gradientd_scalars(run, 1000, 0.0, &scalar, 1) != GRADIENTD_DETACHED) << 3;
    wrong |= (gradientd_close(run, GRADIENTD_SUCCESS) != GRADIENTD_DETACHED) << 4;
    wrong |= (warnings.count != 0) << 5;
    return wrong | maps_shared_memory() << 6;
}

static void fork_child(struct gradientd_run *run) {
    int status;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        _exit(use_in_child(run));
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x", (unsigned)status);
}

static void run_forking(const char *name, bool forks, char path[512]) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, &warnings);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    trainer_submit_steps(run, 1, 20);
    cr_assert(maps_shared_memory());
    if (forks)
        fork_child(run);
    trainer_submit_steps(run, 21, 40);
    float *elements = gradientd_acquire(run);
    cr_assert(elements);
    trainer_gradient(41, elements);
    if (forks)
        fork_child(run);
    struct gradientd_step step = trainer_step(41);
    cr_assert_eq(gradientd_commit(run, &step, NULL), GRADIENTD_OK);
    trainer_close(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);
}

Test(client_fork, forked_child_is_inert) {
    char plain[512], forked[512];
    run_forking("plain", false, plain);
    run_forking("forked", true, forked);
    scratch_expect_same(forked, plain);
}

// ---- a trainer that goes without closing

// A trainer process: `steps` steps, then a child that holds everything open until `hold` ends, then its own exit.
static _Noreturn void train_and_leave(const char *run_name, int64_t steps, int hold, int report) {
    char byte;
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, run_name, NULL);
    struct gradientd_run *run;
    if (gradientd_open(&options, &run, NULL) < 0)
        _exit(1);
    for (int64_t i = 1; i <= steps; i++)
        if (submit_one(run, i) != GRADIENTD_OK)
            _exit(2);
    if (fork() == 0)
        _exit(read(hold, &byte, 1) == 0 ? 0 : 1);
    const char *path = gradientd_event_path(run);
    _exit(write(report, path, strlen(path) + 1) > 0 ? 0 : 3);
}

Test(client_fork, trainer_gone_with_a_child_that_holds_its_socket) {
    enum { STEPS = 30 };
    int hold[2], report[2], status;
    char path[512];
    cr_assert(pipe(hold) == 0 && pipe(report) == 0);
    pid_t trainer = fork();
    cr_assert_geq(trainer, 0);
    if (trainer == 0) {
        close(hold[1]);
        train_and_leave("left", STEPS, hold[0], report[1]);
    }
    cr_assert_eq(waitpid(trainer, &status, 0), trainer);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "wait status 0x%x", (unsigned)status);
    cr_assert_gt(read(report[0], path, sizeof(path)), 0);

    cr_assert(scratch_wait_until(event_values_ended, path, 1.0), "the file is not ended within a second");
    struct event_values values;
    event_values_read(path, &values);
    cr_assert_eq(event_values_count(&values, "gradient/norm"), STEPS);
    cr_assert_eq(values.stops, 1);
    event_values_free(&values);
    close(hold[1]); // lets the child go
}
