// Trainers, killed at random instants: what they had submitted is in a file that is whole, and the daemon keeps nothing
// of them. Some leave a forked child behind that holds the socket, the memory and the event file.
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../stress/random.h"
#include "crash.h"

enum {
    ELEMENTS_MIN = 10,
    ELEMENTS_MAX = 200000,
    LIFE_US_MAX = 60000,
    LOOK_US = 100000,        // between two looks whether the test is there still
    RESIDENT_KIB_MAX = 4096, // by which the daemon may have grown after all of them: the allocator's slack
};

static const double PATIENCE = 60.0; // seconds; the time taken is printed

// What a trainer tells of itself, in memory shared with the test.
struct progress {
    _Atomic bool opened;
    _Atomic int64_t submitted; // the last step whose submit has returned
    _Atomic pid_t child;       // that it left behind, 0: none
};

// What the daemon holds.
struct holdings {
    uint32_t fds;
    uint32_t mappings; // of runs' memory
    uint64_t resident_kib;
};

static uint32_t count_fds(pid_t pid) {
    char path[64];
    uint32_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *entries = opendir(path);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        count += entry->d_name[0] != '.';
    if (entries)
        closedir(entries);
    return count;
}

static struct holdings holdings_of(pid_t pid) {
    struct holdings holdings = {.fds = count_fds(pid)};
    char path[64], line[512];
    unsigned long long kib;

    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        holdings.mappings += strstr(line, "memfd:gradientd") != NULL;
    if (file)
        fclose(file);
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "RssAnon: %llu", &kib) == 1)
            holdings.resident_kib = kib;
    if (file)
        fclose(file);
    return holdings;
}

// In a process of its own, until it is killed.
static _Noreturn void train_until_killed(const struct crash_daemon *daemon, const char *logdir, uint64_t seed,
                                         struct progress *progress) {
    struct crash_stream stream;
    struct gradientd_run *run;
    uint64_t random = seed;
    pid_t test = getppid();

    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (crash_stream_init(&stream, seed, ELEMENTS_MIN, ELEMENTS_MAX) < 0 ||
        crash_stream_open(&stream, daemon->socket, logdir, &run) < 0)
        _exit(1);
    progress->opened = true;
    if (stress_random_below(&random, 4) == 0) {
        pid_t child = fork(); // this trainer may be killed before anybody knows it: then it ends with the test
        while (child == 0) {
            crash_pause_us(LOOK_US);
            if (kill(test, 0) < 0)
                _exit(0);
        }
        progress->child = child;
    }
    for (int64_t step = 1;; step++) {
        if (crash_stream_submit(&stream, run, step) != GRADIENTD_OK)
            _exit(1);
        progress->submitted = step;
    }
}

// Kills it after a random time. Returns 0, or -1 where it had ended before.
static int kill_trainer(pid_t trainer, uint64_t *random) {
    int status, number = stress_random_below(random, 2) ? SIGKILL : SIGABRT;
    crash_pause_us(stress_random_below(random, LIFE_US_MAX));
    kill(trainer, number);
    waitpid(trainer, &status, 0);
    return WIFSIGNALED(status) ? 0 : crash_fail("a trainer ended with 0x%x before it was killed", (unsigned)status);
}

// Waits until the file is whole and the daemon holds what it did before. Returns 0 with the seconds that took, or -1.
static int wait_released(const struct crash_daemon *daemon, const char *path, bool ends, uint32_t fds,
                         struct crash_file_content *content, double *ret_seconds) {
    double start = crash_now();
    *content = (struct crash_file_content){0};
    for (; crash_now() - start < PATIENCE; crash_pause_us(2000)) {
        if (*path && crash_file_read(path, content) < 0)
            return -1;
        struct holdings now = holdings_of(daemon->pid);
        *ret_seconds = crash_now() - start;
        if ((content->ended || !ends) && now.fds == fds && now.mappings == 0)
            return 0;
    }
    struct holdings now = holdings_of(daemon->pid);
    return crash_fail(
        "after %.0f s the file of a killed trainer %s; the daemon has %u descriptors instead of %u, and %u "
        "mappings",
        PATIENCE, content->ended ? "is whole" : "has no end", now.fds, fds, now.mappings);
}

static int check_content(const struct crash_file_content *content, const struct progress *progress) {
    long long submitted = progress->submitted, steps = content->steps;
    if (steps < submitted || steps > submitted + 1) // the last submit may not have returned
        return crash_fail("%lld steps were submitted, the file has %lld", submitted, steps);
    return 0;
}

// One trainer, from its start to the last trace of it.
static int play(struct crash_daemon *daemon, uint32_t number, uint64_t seed, uint32_t fds, struct progress *progress,
                double *ret_seconds) {
    char logdir[CRASH_PATH_BYTES + 32], path[CRASH_PATH_BYTES] = "";
    struct crash_file_content content;
    uint64_t random = seed;

    *progress = (struct progress){0};
    snprintf(logdir, sizeof(logdir), "%s/killed-%u", daemon->directory, number);
    fflush(stdout);
    pid_t trainer = fork();
    if (trainer < 0)
        return crash_fail("fork: %s", strerror(errno));
    if (trainer == 0)
        train_until_killed(daemon, logdir, seed, progress);
    int result = kill_trainer(trainer, &random);
    if (!crash_file_find(logdir, path) && progress->opened)
        result = crash_fail("there is no event file in %s", logdir);
    if (result == 0)
        result = wait_released(daemon, path, progress->opened, fds, &content, ret_seconds);
    if (result == 0)
        result = check_content(&content, progress);
    if (progress->child > 0)
        kill(progress->child, SIGKILL);
    return result;
}

int crash_kill_trainers(struct crash_daemon *daemon, uint32_t kills, uint64_t seed) {
    uint32_t opened = 0, with_child = 0;
    double seconds, longest = 0.0;

    struct progress *progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (progress == MAP_FAILED)
        return crash_fail("no memory");
    if (crash_daemon_start(daemon) < 0 || crash_daemon_wait_up(daemon) < 0)
        return -1;
    struct holdings before = holdings_of(daemon->pid);
    for (uint32_t i = 0; i < kills; i++) {
        if (play(daemon, i, seed + i, before.fds, progress, &seconds) < 0)
            return crash_fail("trainer %u", i);
        longest = seconds > longest ? seconds : longest;
        opened += progress->opened;
        with_child += progress->child > 0;
        if (i == kills / 10)
            before.resident_kib = holdings_of(daemon->pid).resident_kib; // its pools have their size
    }
    struct holdings after = holdings_of(daemon->pid);
    if (CRASH_MEMORY && after.resident_kib > before.resident_kib + RESIDENT_KIB_MAX)
        return crash_fail("the daemon has %llu KiB, before them it had %llu", (unsigned long long)after.resident_kib,
                          (unsigned long long)before.resident_kib);
    munmap(progress, sizeof(*progress));
    printf("ok: %u kills of trainers, %u of them attached, %u with a child left behind: every file whole, with every "
           "step; released within %.2f s; the daemon has %llu KiB, had %llu\n",
           kills, opened, with_child, longest, (unsigned long long)after.resident_kib,
           (unsigned long long)before.resident_kib);
    return crash_daemon_stop(daemon);
}
