#include "process_usage.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "scratch.h"

static const double REST_SECONDS = 15.0; // to begin within

// The sum of the numbers that follow `names` in a file of lines "name: number".
static uint64_t read_numbers(const char *path, const char *const *names) {
    char line[256];
    uint64_t sum = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return 0; // a thread that has ended
    while (fgets(line, sizeof(line), file))
        for (const char *const *name = names; *name; name++) {
            unsigned long long number;
            size_t bytes = strlen(*name);
            if (strncmp(line, *name, bytes) == 0 && sscanf(line + bytes, ": %llu", &number) == 1)
                sum += number;
        }
    fclose(file);
    return sum;
}

struct process_usage process_usage_of(pid_t pid) {
    static const char *const resident[] = {"VmRSS", NULL}, *const anonymous[] = {"RssAnon", NULL};
    static const char *const switches[] = {"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", NULL};
    struct process_usage usage = {.fds = scratch_count_fds(pid)};
    char path[300];

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    usage.resident_kib = read_numbers(path, resident);
    usage.anonymous_kib = read_numbers(path, anonymous);
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *threads = opendir(path);
    cr_assert(threads, "no %s", path);
    for (struct dirent *thread; (thread = readdir(threads));) {
        if (thread->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, thread->d_name);
        usage.threads++;
        usage.switches += read_numbers(path, switches);
    }
    closedir(threads);
    return usage;
}

struct process_usage process_usage_at_rest(pid_t pid, double quiet_seconds) {
    static const struct timespec pause = {.tv_nsec = 20000000};
    struct process_usage usage = process_usage_of(pid);
    double start = scratch_now(), since = start;
    while (scratch_now() - since < quiet_seconds) {
        nanosleep(&pause, NULL);
        struct process_usage now = process_usage_of(pid);
        if (now.switches != usage.switches || now.threads != usage.threads)
            since = scratch_now();
        usage = now;
        cr_assert_lt(since - start, REST_SECONDS, "process %d does not come to rest", pid);
    }
    return usage;
}

uint64_t process_usage_waits(pid_t pid) {
    static const char *const waits[] = {"voluntary_ctxt_switches", NULL};
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    return read_numbers(path, waits);
}
