// Attacks a real daemon that serves a trainer, one attack after the other:
//
//     hostile [--rounds N] [--seed N] [--attack NAME] [--list]
//
// $GRADIENTD_TEST_DAEMON names the daemon's program. Each attack has a daemon of its own, a victim that trains all the
// while and several attackers at once, drawn from the seed. It has held when every attacker met what it must, when the
// victim lost no step and its event file is the one it writes undisturbed, and when the daemon then holds what it held
// before. Prints `ok: ` or `failed: ` for each; the exit status is 0 if all held.
#include <criterion/criterion.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon_process.h"
#include "hostile.h"
#include "process_usage.h"
#include "scratch.h"

enum {
    ATTACKERS_MAX = 8,
    OPTIONS_MAX = 12,
    WARM_UP_STEPS = 20,
    GROWTH_KIB = 3072, // what leaks does so some thousand times
    ATTEMPTS_MAX = 3,
};

static const double ATTACK_SECONDS = 0.8, ATTACKER_PATIENCE_SECONDS = 60.0, QUIET_SECONDS = 0.3;

// What one attack is made with.
struct stage {
    const struct attack *attack;
    uint64_t seed;
    char directory[SCRATCH_PATH_BYTES];
    struct daemon_process daemon;
    struct process_usage before;
    struct victim victim;
    int64_t steps; // of the last victim
    uint64_t longest_us;
    _Atomic uint64_t *done; // shared with the attackers
};

static void start_daemon(struct stage *stage) {
    char socket[DAEMON_PATH_BYTES], state[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", stage->directory);
    snprintf(state, sizeof(state), "%s/state", stage->directory);
    const char *arguments[OPTIONS_MAX + 7] = {"--socket", socket, "--workers", "2", "--state-directory", state};
    for (size_t i = 0; stage->attack->options && stage->attack->options[i]; i++) {
        cr_assert_lt(i, OPTIONS_MAX);
        arguments[6 + i] = stage->attack->options[i];
    }
    daemon_process_launch(&stage->daemon, stage->directory, arguments, NULL);
    cr_assert(daemon_process_comes_up(&stage->daemon), "the daemon did not start");
    if (stage->attack->uid != 0) // who may connect is not what is attacked
        cr_assert(chmod(stage->directory, 0755) == 0 && chmod(socket, 0777) == 0);
}

// ---- the attackers

static _Noreturn void attack(const struct stage *stage, uint32_t index) {
    struct attacker attacker = {
        .socket = stage->daemon.socket,
        .directory = stage->directory,
        .random = stage->seed * ATTACKERS_MAX + index,
        .end = scratch_now() + ATTACK_SECONDS,
        .index = index,
        .daemon = stage->daemon.pid,
        .victim = &stage->victim,
        .done = stage->done,
    };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(attacker.event_path, sizeof(attacker.event_path), "%s/attacker%u/events", stage->directory, index);
    char *name = strrchr(attacker.event_path, '/');
    *name = '\0';
    cr_assert((mkdir(attacker.event_path, 0700) == 0 || errno == EEXIST) &&
              chown(attacker.event_path, stage->attack->uid, -1u) == 0);
    *name = '/';
    if (stage->attack->prepare)
        stage->attack->prepare(&attacker);
    cr_assert(stage->attack->uid == 0 || setuid(stage->attack->uid) == 0);
    stage->attack->run(&attacker);
    _exit(EXIT_SUCCESS);
}

static void run_attackers(struct stage *stage) {
    pid_t pids[ATTACKERS_MAX];
    int pidfds[ATTACKERS_MAX];
    uint32_t failed = 0;
    cr_assert_leq(stage->attack->attackers, ATTACKERS_MAX);
    for (uint32_t i = 0; i < stage->attack->attackers; i++) {
        pids[i] = fork();
        cr_assert_geq(pids[i], 0);
        if (pids[i] == 0)
            attack(stage, i);
        pidfds[i] = (int)syscall(SYS_pidfd_open, pids[i], 0);
        cr_assert_geq(pidfds[i], 0);
    }
    double deadline = scratch_now() + ATTACKER_PATIENCE_SECONDS;
    for (uint32_t i = 0; i < stage->attack->attackers; i++) {
        int status = -1;
        bool ended = scratch_wait_readable(pidfds[i], deadline - scratch_now());
        close(pidfds[i]);
        if (!ended)
            kill(pids[i], SIGKILL);
        waitpid(pids[i], &status, 0);
        failed += !ended || status != 0;
    }
    cr_assert_eq(failed, 0, "%u attackers did not meet what they must", failed);
    cr_assert_gt(*stage->done, 0, "nothing was attacked");
}

// ---- what must hold

// Expects as many threads as before. Returns how much more memory there is.
static uint64_t compare_usage(const struct process_usage *before, const struct process_usage *after) {
    cr_assert_eq(after->threads, before->threads, "the daemon has %zu threads, %zu before", after->threads,
                 before->threads);
    return after->resident_kib > before->resident_kib ? after->resident_kib - before->resident_kib : 0;
}

// The daemon is asked for the undisturbed file too: it must have come to no harm that shows later.
static void expect_undisturbed(const struct stage *stage, int64_t steps) {
    struct victim alone;
    victim_train_alone(&alone, stage->daemon.socket, stage->directory, "alone", steps);
    scratch_expect_same(stage->victim.report->path, alone.report->path);
    victim_free(&alone);
}

static void warm_up(struct stage *stage) {
    struct victim first;
    victim_train_alone(&first, stage->daemon.socket, stage->directory, "first", WARM_UP_STEPS);
    victim_free(&first);
    stage->before = process_usage_at_rest(stage->daemon.pid, QUIET_SECONDS);
}

// Attacks once while the victim trains. Returns by how much the daemon has grown.
static uint64_t attack_once(struct stage *stage) {
    victim_start(&stage->victim, stage->daemon.socket, stage->directory, "victim");
    run_attackers(stage);
    stage->steps = victim_finish(&stage->victim);
    stage->longest_us = stage->victim.report->longest_us;
    daemon_process_expect_fds(&stage->daemon, stage->before.fds); // a file may be tried again only seconds later
    struct process_usage after = process_usage_at_rest(stage->daemon.pid, QUIET_SECONDS);
    uint64_t growth_kib = compare_usage(&stage->before, &after);
    stage->before = after;
    expect_undisturbed(stage, stage->steps);
    victim_free(&stage->victim);
    return growth_kib;
}

// What leaks grows every time; what the allocator keeps after a burst does not.
static void attack_until_flat(struct stage *stage) {
    const struct attack *attack = stage->attack;
    uint64_t growth_kib = 0;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        stage->seed += (uint64_t)i;
        growth_kib = attack_once(stage);
        if (growth_kib > GROWTH_KIB + attack->keeps_kib && HOSTILE_MEMORY)
            continue;
        printf("ok: %s: %llu times, the victim trained %lld steps, the longest took %.1f ms, the daemon grew by %llu "
               "KiB\n",
               attack->name, (unsigned long long)*stage->done, (long long)stage->steps,
               (double)stage->longest_us * 1e-3, (unsigned long long)growth_kib);
        return;
    }
    cr_assert_fail("the daemon grows each time, by %llu KiB at last", (unsigned long long)growth_kib);
}

// In a process of its own; what does not hold ends it.
static void hold(const struct attack *attack, uint64_t seed, const char *directory) {
    struct stage stage = {.attack = attack, .seed = seed};
    void *shared = mmap(NULL, sizeof(*stage.done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    stage.done = shared;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(stage.directory, sizeof(stage.directory), "%s", directory);
    start_daemon(&stage);
    warm_up(&stage);
    attack_until_flat(&stage);
    daemon_process_stop(&stage.daemon);
    fflush(stdout);
}

// ---- all of them

struct request {
    uint64_t seed;
    uint32_t rounds;
    const char *only; // NULL: all
    bool list;
};

static bool holds(const struct attack *attack, uint64_t seed) {
    char directory[SCRATCH_PATH_BYTES];
    int status = -1;
    if (attack->uid != 0 && geteuid() != 0) {
        printf("skipped: %s: only root can be another user\n", attack->name);
        return true;
    }
    scratch_make(directory);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        hold(attack, seed, directory);
        _exit(EXIT_SUCCESS);
    }
    waitpid(pid, &status, 0);
    if (status != 0)
        printf("failed: %s, seed %llu: wait status 0x%x\n", attack->name, (unsigned long long)seed, (unsigned)status);
    scratch_remove(directory);
    return status == 0;
}

// Returns whether all held, and adds how many there were to *count.
static bool run_attacks(struct attacks attacks, const struct request *request, uint64_t seed, uint32_t *count) {
    bool all = true;
    for (size_t i = 0; i < attacks.n_attacks; i++) {
        const struct attack *attack = &attacks.attacks[i];
        if (request->only && strcmp(request->only, attack->name) != 0)
            continue;
        ++*count;
        if (request->list)
            puts(attack->name);
        else
            all = holds(attack, seed) && all;
    }
    return all;
}

static struct request parse(int argc, char **argv) {
    static const struct option known[] = {
        {"rounds", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {"attack", required_argument, NULL, 'a'},
        {"list", no_argument, NULL, 'l'},
        {0},
    };
    struct request request = {.seed = 1, .rounds = 1};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'r')
            request.rounds = (uint32_t)strtoul(optarg, NULL, 10);
        else if (option == 's')
            request.seed = strtoull(optarg, NULL, 10);
        else if (option == 'a')
            request.only = optarg;
        else if (option == 'l')
            request.list = true;
        else
            exit(2);
    }
    return request;
}

int main(int argc, char **argv) {
    struct request request = parse(argc, argv);
    const struct attacks all[] = {attacks_flooding(), attacks_lingering(), attacks_descriptors(),
                                  attacks_bombs(),    attacks_memory(),    attacks_users()};
    bool held = true;
    uint32_t count = 0;
    for (uint32_t round = 0; round < request.rounds; round++)
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            held = run_attacks(all[i], &request, request.seed + round, &count) && held;
    if (count == 0)
        fprintf(stderr, "hostile: there is no such attack\n");
    return held && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
