#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../stress/random.h"
#include "../stress/stress.h"
#include "files.h"

enum {
    CUT_BYTES_MAX = 400000, // what the outbox surely holds, with what has been appended since
    SHORT_BYTES_MAX = 3000,
};

static int fail(const char *what) {
    return stress_fail("%s: %s", what, strerror(errno));
}

static uint64_t file_bytes(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 ? (uint64_t)status.st_size : 0;
}

// ---- A full disk, a limit, O_APPEND

static bool has_disk(const struct files *files) {
    return files->has_disk;
}

static int begin_full_disk(struct files *files) {
    static const uint8_t zeros[65536];
    char path[FILES_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/ballast", files->disk);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(path);
    while (write(fd, zeros, sizeof(zeros)) > 0)
        continue;
    int error = errno;
    close(fd);
    return error == ENOSPC ? 0 : stress_fail("the disk does not fill up");
}

static int end_full_disk(struct files *files) {
    char path[FILES_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/ballast", files->disk);
    return unlink(path) == 0 ? 0 : fail(path);
}

static int set_limit(const struct files *files, uint64_t bytes) {
    struct rlimit limit;
    if (prlimit(files->daemon, RLIMIT_FSIZE, NULL, &limit) < 0)
        return fail("prlimit");
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    return prlimit(files->daemon, RLIMIT_FSIZE, &limit, NULL) == 0 ? 0 : fail("prlimit");
}

// Holds for the other run's file as well, which is in the same trouble then.
static int begin_limit(struct files *files) {
    return set_limit(files, file_bytes(files->faulty_fd) + stress_random_below(&files->random, 50000));
}

static int end_limit(struct files *files) {
    return set_limit(files, RLIM_INFINITY);
}

// The client's descriptor is of the same open file as the daemon's.
static int set_flags(struct files *files, int flags) {
    for (int fd = 3; fd < 1024; fd++) {
        char link[64], target[FILES_PATH_BYTES];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t bytes = fd == files->faulty_fd ? -1 : readlink(link, target, sizeof(target) - 1);
        target[bytes < 0 ? 0 : bytes] = '\0';
        if (strncmp(target, files->faulty_path, strlen(files->faulty_path)) == 0) // " (deleted)" may follow
            return fcntl(fd, F_SETFL, flags) == 0 ? 0 : fail("F_SETFL");
    }
    return stress_fail("the client does not have %s open", files->faulty_path);
}

static int begin_append(struct files *files) {
    return set_flags(files, O_APPEND);
}

static int end_append(struct files *files) {
    return set_flags(files, 0);
}

// ---- A file that is cut off or deleted

static int cut_off(struct files *files) {
    uint64_t bytes = file_bytes(files->faulty_fd), most = bytes < CUT_BYTES_MAX ? bytes : CUT_BYTES_MAX;
    uint64_t less = most > 0 ? 1 + stress_random_below(&files->random, (uint32_t)most) : 0;
    return ftruncate(files->faulty_fd, (off_t)(bytes - less)) == 0 ? 0 : fail("ftruncate");
}

static int begin_cut(struct files *files) {
    return files_catch_up(files) < 0 ? -1 : cut_off(files);
}

static int begin_kill(struct files *files) {
    return files_kill_daemon(files);
}

static int begin_kill_and_cut(struct files *files) {
    return files_catch_up(files) < 0 || files_kill_daemon(files) < 0 ? -1 : cut_off(files);
}

static bool is_linked(const struct files *files) {
    struct stat status;
    return fstat(files->faulty_fd, &status) == 0 && status.st_nlink > 0;
}

static int begin_delete(struct files *files) {
    return unlink(files->faulty_path) == 0 ? 0 : fail(files->faulty_path);
}

// ---- Writes that fail, are short or hang

static bool has_library(const struct files *files) {
    return files->library != NULL;
}

static int begin_short(struct files *files) {
    files->failing->short_bytes = 1 + stress_random_below(&files->random, SHORT_BYTES_MAX);
    return 0;
}

static int end_short(struct files *files) {
    files->failing->short_bytes = 0;
    return 0;
}

static int begin_hang(struct files *files) {
    files->failing->hangs = true;
    return 0;
}

static int end_hang(struct files *files) {
    files->failing->hangs = false;
    return 0;
}

static int end_error(struct files *files) {
    files->failing->error = 0;
    return 0;
}

static int begin_io_error(struct files *files) {
    files->failing->error = EIO;
    return 0;
}

static int begin_read_only(struct files *files) {
    files->failing->error = EROFS;
    return 0;
}

static int begin_quota(struct files *files) {
    files->failing->error = EDQUOT;
    return 0;
}

// Some of the bytes, then none.
static int begin_short_then_error(struct files *files) {
    return begin_short(files) < 0 ? -1 : begin_quota(files);
}

static int end_short_then_error(struct files *files) {
    return end_short(files) < 0 ? -1 : end_error(files);
}

#define FAULT(what, begins, ends) .name = what, .begin = begins, .end = ends
#define WITH_DISK .is_possible = has_disk, .needs = "a file system that can be mounted"
#define WITH_LIBRARY .is_possible = has_library, .needs = "a library that can be preloaded"

const struct files_fault files_faults[FILES_FAULTS] = {
    {FAULT("full disk", begin_full_disk, end_full_disk), WITH_DISK},
    {FAULT("limit", begin_limit, end_limit)},
    {FAULT("O_APPEND", begin_append, end_append)},
    {FAULT("cut off", begin_cut, NULL)},
    {FAULT("daemon killed", begin_kill, files_start_daemon)},
    {FAULT("daemon killed, cut off", begin_kill_and_cut, files_start_daemon)},
    {FAULT("deleted", begin_delete, NULL), .is_possible = is_linked},
    {FAULT("short writes", begin_short, end_short), WITH_LIBRARY},
    {FAULT("hung", begin_hang, end_hang), WITH_LIBRARY},
    {FAULT("EIO", begin_io_error, end_error), WITH_LIBRARY},
    {FAULT("EROFS", begin_read_only, end_error), WITH_LIBRARY},
    {FAULT("EDQUOT", begin_quota, end_error), WITH_LIBRARY},
    {FAULT("short writes, then EDQUOT", begin_short_then_error, end_short_then_error), WITH_LIBRARY},
};
