#include "scratch.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../tools/remove_tree.h"

void scratch_make(char path[SCRATCH_PATH_BYTES]) {
    strcpy(path, "/tmp/gradientd-test-XXXXXX");
    cr_assert(mkdtemp(path), "mkdtemp: %s", strerror(errno));
}

void scratch_remove(const char *path) {
    cr_assert(remove_tree(path) == 0, "%s: %s", path, strerror(errno));
}

struct scratch_bytes scratch_read(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &status) == 0, "%s: %s", path, strerror(errno));
    struct scratch_bytes file = {.data = malloc((size_t)status.st_size + 1), .bytes = (size_t)status.st_size};
    cr_assert(file.data);
    cr_assert(read(fd, file.data, file.bytes) == (ssize_t)file.bytes, "%s: %s", path, strerror(errno));
    close(fd);
    return file;
}

void scratch_expect_same(const char *path, const char *expected_path) {
    struct scratch_bytes file = scratch_read(path), expected = scratch_read(expected_path);
    cr_assert(expected.bytes > 0, "%s is empty", expected_path);
    cr_assert(file.bytes == expected.bytes, "%s has %zu bytes, %s %zu", path, file.bytes, expected_path,
              expected.bytes);
    size_t at = 0;
    while (at < file.bytes && file.data[at] == expected.data[at])
        at++;
    cr_assert(at == file.bytes, "%s differs from %s at byte %zu", path, expected_path, at);
    free(file.data);
    free(expected.data);
}

double scratch_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool scratch_wait_until(bool (*holds)(const void *context), const void *context, double seconds) {
    static const struct timespec pause = {.tv_nsec = 1000000};
    double deadline = scratch_now() + seconds;
    while (!holds(context)) {
        if (scratch_now() > deadline)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

bool scratch_wait_readable(int fd, double seconds) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    double deadline = scratch_now() + seconds;
    for (;;) {
        double left = deadline - scratch_now();
        int ready = poll(&poll_fd, 1, left > 0.0 ? (int)(left * 1e3) + 1 : 0);
        if (ready != 0 && !(ready < 0 && errno == EINTR))
            return ready > 0;
        if (left <= 0.0)
            return false;
    }
}

size_t scratch_count_fds(pid_t pid) {
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid ? pid : getpid());
    DIR *entries = opendir(path);
    cr_assert(entries, "%s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries));)
        count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}
