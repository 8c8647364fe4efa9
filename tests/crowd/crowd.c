// Many trainers at once on one daemon, of all sizes and both transports: some are killed, some of those come again,
// some leave a child behind, and the daemon is killed and started again meanwhile.
//
//     crowd [--trainers N] [--rounds N] [--seed N]
//
// $GRADIENTD_TEST_DAEMON names the daemon's program, which starts with a soft limit of 256 descriptors. The event file
// of every trainer must be the one that it writes undisturbed: that of the killed ones with all the steps they had
// handed over, and ended. Prints what the daemon holds, and `ok: ` for each round; the exit status is 0 if all held.
#include <criterion/criterion.h>
#include <dirent.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crowd.h"
#include "daemon_process.h"
#include "event_values.h"
#include "process_usage.h"
#include "random.h"
#include "scratch.h"

enum {
    SOFT_DESCRIPTORS = 256,
    FDS_A_RUN = 3, // that the daemon holds at least: socket, memory or pidfd, event file
    TRAINERS_MAX = 4096,
    TRAINERS_MANY = 64, // of whom some are killed for sure
    KILL_WITHIN_US = 20000,
    POLL_WITHIN_US = 3000,
    RUN_KIB_MAX = 512, // of the daemon's own memory; twice what these runs were measured to take
};

static const double PATIENCE_SECONDS = 120.0;

// What is left of a trainer that was killed.
struct remains {
    char name[16];
    uint32_t spec;
    bool is_inline;
    int64_t first, submitted; // it was within the step after `submitted`
    uint64_t hash;            // of its event file
};

struct stage {
    struct crowd *crowd;
    struct daemon_process daemon;
    uint64_t random;
    char directory[SCRATCH_PATH_BYTES];
    struct process_usage before, with_all; // no trainer is there; all of them are
    uint64_t peak_kib, shared_peak_kib;    // of the daemon's own memory, and of what is shared with it
    struct remains *remains;
    uint32_t n_remains, restarted, daemons_killed, busy_daemons_killed;
};

// ---- the daemon

static void lower_soft_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = SOFT_DESCRIPTORS;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void start_daemon(struct stage *stage) {
    const char *const arguments[] = {"--socket",
                                     stage->crowd->place.socket,
                                     "--workers",
                                     "2",
                                     "--runs-per-user",
                                     "4096",
                                     "--fds-per-user",
                                     "16384",
                                     "--memory-per-user",
                                     "80%",
                                     "--connections-per-user",
                                     "4096",
                                     NULL};
    daemon_process_launch(&stage->daemon, stage->directory, arguments, lower_soft_limit);
    cr_assert(daemon_process_comes_up(&stage->daemon), "the daemon did not start");
}

static void look_at_memory(struct stage *stage) {
    struct process_usage usage = process_usage_of(stage->daemon.pid);
    uint64_t shared_kib = usage.resident_kib - usage.anonymous_kib;
    if (usage.anonymous_kib > stage->peak_kib)
        stage->peak_kib = usage.anonymous_kib;
    if (shared_kib > stage->shared_peak_kib)
        stage->shared_peak_kib = shared_kib;
}

static void pause_up_to_us(struct stage *stage, uint32_t most) {
    struct timespec pause = {.tv_nsec = (long)stress_random_below(&stage->random, most) * 1000};
    nanosleep(&pause, NULL);
}

// ---- trainers that are killed

// The event file in a run's directory: one at most, as a trainer that closes removes its own.
static bool find_event_file(const struct crowd *crowd, const char *name, char path[512]) {
    char directory[256];
    snprintf(directory, sizeof(directory), "%s/%s", crowd->place.logdir, name);
    DIR *entries = opendir(directory);
    cr_assert(entries, "no %s", directory);
    *path = '\0';
    for (struct dirent *entry; (entry = readdir(entries));)
        if (strstr(entry->d_name, "tfevents"))
            snprintf(path, 512, "%s/%.200s", directory, entry->d_name);
    closedir(entries);
    return *path != '\0';
}

// Whether this daemon serves the run and has been sent all that its trainer had kept meanwhile: it is said to be
// attached, which the trainer reads in the next call that begins, the second that ends, and sends it there. A trainer
// that dies sooner takes steps with it, as its daemon died as well.
static bool has_come_back(const struct stage *stage, struct crowd_trainer *trainer, const struct scratch_bytes *log) {
    char line[64];
    if (trainer->seen_daemon != stage->daemon.pid) {
        int bytes = snprintf(line, sizeof(line), "run %s: attached", trainer->name);
        if (!memmem(log->data, log->bytes, line, (size_t)bytes))
            return false;
        trainer->seen_daemon = stage->daemon.pid;
        trainer->seen_at = trainer->submitted;
    }
    return trainer->submitted >= trainer->seen_at + 2;
}

static void kill_those_due(struct stage *stage) {
    struct scratch_bytes log = scratch_read(stage->daemon.log);
    for (uint32_t i = 0; i < stage->crowd->n_trainers; i++) {
        struct crowd_trainer *trainer = &stage->crowd->trainers[i];
        if (!trainer->is_killed || trainer->pid == 0 || trainer->is_closed ||
            trainer->submitted < trainer->kill_after || !has_come_back(stage, trainer, &log))
            continue;
        kill(trainer->pid, SIGKILL);
        waitpid(trainer->pid, NULL, 0);
        trainer->pid = 0;
    }
    free(log.data);
}

// Waits until the daemon has ended the file of a trainer that was killed; the trainer may come again.
static void bury(struct stage *stage, struct crowd_trainer *trainer) {
    char path[512];
    struct remains remains = {.spec = trainer->spec,
                              .is_inline = trainer->transport != GRADIENTD_SHARED_MEMORY,
                              .first = trainer->first,
                              .submitted = trainer->submitted};
    int64_t steps = stress_spec_steps(stage->crowd->specs[trainer->spec]);
    snprintf(remains.name, sizeof(remains.name), "%s", trainer->name);
    trainer->is_killed = false;
    if (find_event_file(stage->crowd, trainer->name, path)) {
        cr_assert(scratch_wait_until(event_values_ended, path, PATIENCE_SECONDS), "%s is not ended", path);
        cr_assert_eq(stress_hash_file(path, &remains.hash), 0);
        stage->remains[stage->n_remains++] = remains;
    } else {
        cr_assert_eq(trainer->submitted, steps, "%s has no event file", trainer->name); // it had closed already
    }
    trainer->is_closed = !trainer->restarts || trainer->submitted == steps;
    if (trainer->is_closed)
        return;
    trainer->first = trainer->submitted + 1;
    trainer->forks = false;
    crowd_start(stage->crowd, trainer);
    stage->restarted++;
}

static void bury_the_dead(struct stage *stage) {
    for (uint32_t i = 0; i < stage->crowd->n_trainers; i++)
        if (stage->crowd->trainers[i].pid == 0 && !stage->crowd->trainers[i].is_closed)
            bury(stage, &stage->crowd->trainers[i]);
}

// ---- phases

static bool is_at_limit(const struct crowd *crowd, const struct crowd_trainer *trainer, uint32_t phase) {
    int64_t limit = crowd_limit(crowd, trainer, phase);
    if (trainer->is_closed || trainer->pid == 0)
        return true;
    return trainer->is_open && trainer->submitted >= limit && limit <= stress_spec_steps(crowd->specs[trainer->spec]);
}

static bool all_at_limit(const struct stage *stage, uint32_t phase) {
    for (uint32_t i = 0; i < stage->crowd->n_trainers; i++)
        if (!is_at_limit(stage->crowd, &stage->crowd->trainers[i], phase))
            return false;
    return true;
}

// Waits until all have done what this phase allows; in an odd one those whose time has come are killed.
static void wait_for_all(struct stage *stage, uint32_t phase) {
    double deadline = scratch_now() + PATIENCE_SECONDS;
    for (bool done = false; !done; pause_up_to_us(stage, POLL_WITHIN_US)) {
        done = all_at_limit(stage, phase);
        cr_assert_not(stage->crowd->has_failed, "a trainer failed in phase %u", phase);
        cr_assert_lt(scratch_now(), deadline, "phase %u does not end", phase);
        if (phase % 2 == 1)
            kill_those_due(stage);
        look_at_memory(stage);
    }
}

// At a random instant of what the trainers are doing; at least once that must be before all have done it.
static void kill_daemon(struct stage *stage, uint32_t phase) {
    pause_up_to_us(stage, KILL_WITHIN_US);
    look_at_memory(stage);
    stage->busy_daemons_killed += !all_at_limit(stage, phase);
    daemon_process_kill(&stage->daemon);
    start_daemon(stage);
    stage->daemons_killed++;
}

static void run_phase(struct stage *stage, uint32_t phase) {
    crowd_open_phase(stage->crowd, phase);
    if (phase % 2 == 0)
        kill_daemon(stage, phase);
    wait_for_all(stage, phase);
    bury_the_dead(stage);
    wait_for_all(stage, phase);
}

// ---- what must hold

// What a run of these steps writes when nothing disturbs it.
static uint64_t undisturbed_hash(const struct crowd *crowd, uint32_t spec, int64_t first, int64_t last) {
    struct stress_manner manner = {.name = "undisturbed", .first = first, .last = last};
    uint64_t hash = 0;
    cr_assert_eq(stress_run(&crowd->place, crowd->specs[spec], &manner, &hash), 0);
    return hash;
}

// It may have sent the step that it was within. Inline, a part of the last one may have waited for room in the socket.
static void expect_whole(const struct crowd *crowd, const struct remains *remains) {
    int64_t steps = stress_spec_steps(crowd->specs[remains->spec]);
    int64_t least = remains->submitted - (remains->is_inline && remains->submitted > remains->first);
    for (int64_t last = least; last <= steps && last <= remains->submitted + 1; last++)
        if (undisturbed_hash(crowd, remains->spec, remains->first, last) == remains->hash)
            return;
    cr_assert_fail("%s was killed after step %lld, and its file is another", remains->name,
                   (long long)remains->submitted);
}

static void expect_undisturbed(const struct stage *stage) {
    const struct crowd *crowd = stage->crowd;
    uint64_t whole_runs[CROWD_SPECS];
    for (uint32_t i = 0; i < CROWD_SPECS; i++)
        whole_runs[i] = undisturbed_hash(crowd, i, 0, 0);
    for (uint32_t i = 0; i < crowd->n_trainers; i++) {
        const struct crowd_trainer *trainer = &crowd->trainers[i];
        if (trainer->pid == 0)
            continue; // it was killed for good
        uint64_t hash =
            trainer->first == 1 ? whole_runs[trainer->spec] : undisturbed_hash(crowd, trainer->spec, trainer->first, 0);
        cr_assert_eq(trainer->hash, hash, "%s, from step %lld on, has another file", trainer->name,
                     (long long)trainer->first);
    }
    for (uint32_t i = 0; i < stage->n_remains; i++)
        expect_whole(crowd, &stage->remains[i]);
}

// All of them are there, none trains yet.
static void look_at_all(struct stage *stage) {
    uint32_t trainers = stage->crowd->n_trainers;
    wait_for_all(stage, 0);
    stage->with_all = process_usage_of(stage->daemon.pid);
    cr_assert_geq(stage->with_all.fds, stage->before.fds + (size_t)FDS_A_RUN * trainers);
}

static void report(const struct stage *stage, uint64_t seed, double seconds) {
    uint32_t trainers = stage->crowd->n_trainers;
    const struct process_usage *before = &stage->before, *with_all = &stage->with_all;
    uint64_t own_kib = with_all->anonymous_kib - before->anonymous_kib;
    printf(
        "ok: seed %llu: %u trainers at once, %u killed, %u of them came again, the daemon killed %u times, %u of them "
        "busy, in %.1f s; "
        "%zu descriptors; the daemon's own memory: %llu KiB without them, %llu with them, that is %llu a run, %llu at "
        "most; shared with them: %llu MiB at most\n",
        (unsigned long long)seed, trainers, stage->n_remains, stage->restarted, stage->daemons_killed,
        stage->busy_daemons_killed, seconds, with_all->fds, (unsigned long long)before->anonymous_kib,
        (unsigned long long)with_all->anonymous_kib, (unsigned long long)(own_kib / trainers),
        (unsigned long long)stage->peak_kib, (unsigned long long)stage->shared_peak_kib / 1024);
    cr_assert(trainers < TRAINERS_MANY || stage->n_remains > 0);
    cr_assert(trainers < TRAINERS_MANY || stage->busy_daemons_killed > 0);
    cr_assert(!CROWD_MEMORY || stage->peak_kib <= before->anonymous_kib + (uint64_t)RUN_KIB_MAX * trainers,
              "the daemon took more than %d KiB a run of its own", RUN_KIB_MAX);
}

static void run_round(struct crowd *crowd, uint64_t seed) {
    struct stage stage = {.crowd = crowd, .random = seed};
    double start = scratch_now();
    scratch_make(stage.directory);
    snprintf(crowd->place.logdir, sizeof(crowd->place.logdir), "%s", stage.directory);
    snprintf(crowd->place.socket, sizeof(crowd->place.socket), "%s/socket", stage.directory);
    stage.remains = calloc(crowd->n_trainers, sizeof(*stage.remains));
    cr_assert(stage.remains);
    for (uint32_t i = 0; i < CROWD_SPECS; i++)
        cr_assert(crowd->specs[i] = stress_spec_new(seed, i));
    start_daemon(&stage);
    stage.before = process_usage_of(stage.daemon.pid);
    crowd_open_phase(crowd, 0);
    for (uint32_t i = 0; i < crowd->n_trainers; i++) {
        crowd_plan(crowd, &crowd->trainers[i], i, &stage.random);
        crowd_start(crowd, &crowd->trainers[i]);
    }
    look_at_all(&stage);
    for (uint32_t phase = 1; phase <= CROWD_PHASES; phase++)
        run_phase(&stage, phase);
    crowd_open_phase(crowd, CROWD_PHASES + 1);
    for (uint32_t i = 0; i < crowd->n_trainers; i++)
        if (crowd->trainers[i].pid != 0)
            waitpid(crowd->trainers[i].pid, NULL, 0);
    daemon_process_expect_fds(&stage.daemon, stage.before.fds);
    daemon_process_stop(&stage.daemon);
    start_daemon(&stage);
    expect_undisturbed(&stage);
    daemon_process_stop(&stage.daemon);
    report(&stage, seed, scratch_now() - start);
    for (uint32_t i = 0; i < CROWD_SPECS; i++)
        stress_spec_free(crowd->specs[i]);
    free(stage.remains);
    scratch_remove(stage.directory);
}

int main(int argc, char **argv) {
    static const struct option known[] = {
        {"trainers", required_argument, NULL, 't'},
        {"rounds", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {0},
    };
    uint64_t seed = 1, rounds = 1, trainers = 256;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        uint64_t *value = option == 't' ? &trainers : option == 'r' ? &rounds : option == 's' ? &seed : NULL;
        if (!value)
            return 2;
        *value = strtoull(optarg, NULL, 10);
    }
    if (trainers == 0 || trainers > TRAINERS_MAX || rounds == 0)
        return 2;
    size_t bytes = sizeof(struct crowd) + trainers * sizeof(struct crowd_trainer);
    struct crowd *crowd = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(crowd, MAP_FAILED);
    crowd->n_trainers = (uint32_t)trainers;
    crowd->pid = getpid();
    for (uint64_t round = 0; round < rounds; round++) {
        run_round(crowd, seed + round);
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}
