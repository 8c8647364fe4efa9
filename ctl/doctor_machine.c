// What this machine and this shell let a trainer have.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "checkup.h"

enum {
    FILES_PROBLEM = 32, // a trainer's own libraries open as many
    FILES_WARNING = 256,
};

static const uint64_t MEMORY_WARNING_BYTES = UINT64_C(1) << 30; // a run of 25 M parameters takes as much

static void check_files(struct gd_checkup *checkup) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    enum gd_verdict verdict = limit.rlim_cur < FILES_PROBLEM   ? GD_VERDICT_PROBLEM
                              : limit.rlim_cur < FILES_WARNING ? GD_VERDICT_WARNING
                                                               : GD_VERDICT_OK;
    gd_checkup_add(checkup, "open-files", verdict,
                   verdict == GD_VERDICT_OK ? NULL
                                            : "ulimit -n 1024 in the trainer's shell, or LimitNOFILE= in its unit",
                   "a process of this shell may have %" PRIu64 " open files, each run takes up to 4",
                   (uint64_t)limit.rlim_cur);
}

// Makes memory as a trainer does.
static int try_memory(void) {
    enum { BYTES = 4096, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };
    int fd = memfd_create("gradientctl-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING), result = 0;
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, BYTES) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        result = -errno;
    void *memory = result == 0 ? mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (result == 0 && memory == MAP_FAILED)
        result = -errno;
    if (memory != MAP_FAILED)
        munmap(memory, BYTES);
    close(fd);
    return result;
}

static void check_memfd(struct gd_checkup *checkup) {
    int result = try_memory();
    gd_checkup_add(checkup, "shared-memory", result == 0 ? GD_VERDICT_OK : GD_VERDICT_PROBLEM,
                   result == 0 ? NULL
                               : "a container's seccomp profile, or vm.memfd_noexec=2, may forbid memfd_create; until "
                                 "then give the run the inline transport",
                   result == 0 ? "memory can be made, sealed and mapped%s"
                               : "memory cannot be made, sealed and mapped: %s",
                   result == 0 ? "" : strerror(-result));
}

// A number in a file, times `unit`; UINT64_MAX where there is none ("max").
static uint64_t read_number(const char *path, const char *key, uint64_t unit) {
    char line[256];
    uint64_t number = UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (!file)
        return number;
    while (number == UINT64_MAX && fgets(line, sizeof(line), file)) {
        const char *value = line + strlen(key);
        char *end;
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        uint64_t read = strtoull(value, &end, 10);
        if (end > value)
            number = read * unit;
    }
    fclose(file);
    return number;
}

// This process's path in the one hierarchy of cgroups (cgroups(7), version 2); false: there is none.
static bool own_cgroup(char ret_path[static PATH_MAX]) {
    static const char prefix[] = "0::";
    char line[PATH_MAX];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        found = strncmp(line, prefix, strlen(prefix)) == 0;
    }
    fclose(file);
    if (found)
        snprintf(ret_path, PATH_MAX, "%s", line + strlen(prefix));
    return found;
}

// What the cgroup and those above it leave; UINT64_MAX: no limit.
static uint64_t cgroup_free_bytes(void) {
    char cgroup[PATH_MAX], path[PATH_MAX + 64];
    uint64_t least = UINT64_MAX;
    if (!own_cgroup(cgroup))
        return least;
    for (char *slash = cgroup + strlen(cgroup); slash; slash = strrchr(cgroup, '/')) {
        *slash = '\0';
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", cgroup);
        uint64_t most = read_number(path, "", 1);
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.current", cgroup);
        uint64_t used = read_number(path, "", 1);
        uint64_t left = most == UINT64_MAX || used == UINT64_MAX ? UINT64_MAX : most > used ? most - used : 0;
        least = left < least ? left : least;
    }
    return least;
}

// The memory of a run belongs to its trainer: its cgroup pays.
static void check_memory(struct gd_checkup *checkup) {
    static const char advice[] =
        "a run needs its elements eight times and more: lower max_lag, take bf16, or raise the "
        "job's memory limit";
    uint64_t available = read_number("/proc/meminfo", "MemAvailable:", 1024), left = cgroup_free_bytes();
    if (available != UINT64_MAX) {
        bool low = available < MEMORY_WARNING_BYTES;
        gd_checkup_add(checkup, "memory", low ? GD_VERDICT_WARNING : GD_VERDICT_OK, low ? advice : NULL,
                       "%" PRIu64 " MiB are available", available >> 20);
    }
    if (left != UINT64_MAX) {
        bool low = left < MEMORY_WARNING_BYTES;
        gd_checkup_add(checkup, "cgroup-memory", low ? GD_VERDICT_WARNING : GD_VERDICT_OK, low ? advice : NULL,
                       "this cgroup has %" PRIu64 " MiB left", left >> 20);
    }
}

// Of the whole machine: /proc/sys/fs/file-nr has those that are open, 0, and the most.
static void check_all_files(struct gd_checkup *checkup) {
    unsigned long long open = 0, most = 0;
    char line[128] = "";
    FILE *file = fopen("/proc/sys/fs/file-nr", "re");
    if (!file)
        return;
    bool read = fgets(line, sizeof(line), file);
    fclose(file);
    char *end = line;
    open = strtoull(end, &end, 10);
    strtoull(end, &end, 10);
    most = strtoull(end, &end, 10);
    if (!read || most == 0)
        return;
    bool full = open > most / 10 * 9;
    gd_checkup_add(checkup, "machine-files", full ? GD_VERDICT_WARNING : GD_VERDICT_OK,
                   full ? "raise /proc/sys/fs/file-max" : NULL, "%llu of %llu files are open on this machine", open,
                   most);
}

void gd_doctor_check_machine(struct gd_checkup *checkup) {
    check_files(checkup);
    check_all_files(checkup);
    check_memfd(checkup);
    check_memory(checkup);
}
