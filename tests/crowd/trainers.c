#include <criterion/criterion.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "crowd.h"
#include "random.h"

void crowd_plan(const struct crowd *crowd, struct crowd_trainer *trainer, uint32_t index, uint64_t *random) {
    static const enum gradientd_transport transports[] = {
        GRADIENTD_INLINE,        GRADIENTD_INLINE_DEFLATED, GRADIENTD_SHARED_MEMORY, GRADIENTD_SHARED_MEMORY,
        GRADIENTD_SHARED_MEMORY, GRADIENTD_SHARED_MEMORY,   GRADIENTD_SHARED_MEMORY, GRADIENTD_SHARED_MEMORY,
    };
    *trainer = (struct crowd_trainer){
        .spec = index % CROWD_SPECS,
        .transport = transports[stress_random_below(random, 8)],
        .in_place = stress_random_below(random, 2),
        .is_killed = stress_random_below(random, 6) == 0,
        .restarts = stress_random_below(random, 2),
        .forks = stress_random_below(random, 6) == 0,
        .first = 1,
    };
    snprintf(trainer->name, sizeof(trainer->name), "trainer%u", index);
    int64_t steps = stress_spec_steps(crowd->specs[trainer->spec]);
    trainer->kill_after = 1 + (int64_t)stress_random_below(random, (uint32_t)(steps - 1));
}

int64_t crowd_limit(const struct crowd *crowd, const struct crowd_trainer *trainer, uint32_t phase) {
    int64_t steps = stress_spec_steps(crowd->specs[trainer->spec]);
    if (phase == 0)
        return 0;
    if (phase == CROWD_PHASES || trainer->transport != GRADIENTD_SHARED_MEMORY)
        return steps + 1; // and to the end of the run
    return steps * phase / CROWD_PHASES;
}

// ---- in the trainer's process

struct self {
    struct crowd *crowd;
    struct crowd_trainer *trainer;
};

static void wait_for_phase_after(struct crowd *crowd, uint32_t phase) {
    static const struct timespec a_while = {.tv_sec = 1};
    syscall(SYS_futex, &crowd->phase, FUTEX_WAIT, phase, &a_while, NULL, 0);
}

// A process that came with fork() and has the trainer's descriptors, such as one that loads data. Its handle is inert.
static _Noreturn void stay_behind(struct crowd *crowd, struct gradientd_run *run) {
    const struct gradientd_scalar value = {"forked", 1.0f};
    if (gradientd_scalars(run, 1000000, 0.0, &value, 1) != GRADIENTD_DETACHED)
        crowd->has_failed = true;
    while (crowd->phase <= CROWD_PHASES && kill(crowd->pid, 0) == 0)
        wait_for_phase_after(crowd, crowd->phase);
    _exit(EXIT_SUCCESS);
}

static void before_step(void *context, struct gradientd_run *run, int64_t step) {
    const struct self *self = context;
    struct crowd_trainer *trainer = self->trainer;
    trainer->submitted = step - 1;
    trainer->is_open = true;
    if (trainer->forks && step == trainer->first + 1 && fork() == 0)
        stay_behind(self->crowd, run);
    for (uint32_t phase; step > crowd_limit(self->crowd, trainer, phase = self->crowd->phase);)
        wait_for_phase_after(self->crowd, phase);
}

// A daemon that is away is part of the play; what is lost shows in the file.
static void ignore_warning(void *context, const char *text) {
    (void)context;
    (void)text;
}

static int train(struct crowd *crowd, struct crowd_trainer *trainer) {
    struct self self = {crowd, trainer};
    struct stress_manner manner = {
        .name = trainer->name,
        .transport = trainer->transport,
        .in_place = trainer->in_place,
        .first = trainer->first,
        .before_step = before_step,
        .context = &self,
        .warn = ignore_warning,
    };
    uint64_t hash;
    if (stress_run(&crowd->place, crowd->specs[trainer->spec], &manner, &hash) < 0)
        return -1;
    trainer->hash = hash;
    trainer->is_closed = true;
    return 0;
}

void crowd_start(struct crowd *crowd, struct crowd_trainer *trainer) {
    trainer->submitted = trainer->first - 1;
    trainer->is_open = false;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid != 0) {
        trainer->pid = pid;
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int result = train(crowd, trainer);
    if (result < 0)
        crowd->has_failed = true;
    _exit(result < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

void crowd_open_phase(struct crowd *crowd, uint32_t phase) {
    crowd->phase = phase;
    syscall(SYS_futex, &crowd->phase, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
