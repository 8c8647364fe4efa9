// Preloaded into a daemon: its writes to certain files fail, are short or hang for as long as a test says so.
#include "failing_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct failing_files *control;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("GRADIENTD_TEST_FAILING_FILES");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        abort();
    control = mapped;
    close(fd);
}

static bool is_meant(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof(path) - 1);
    path[bytes < 0 ? 0 : bytes] = '\0';
    return strstr(path, control->name) != NULL;
}

// Returns the error that a write is to fail with, and how much of `bytes` it may take.
static int interfere(size_t *bytes) {
    static const struct timespec pause = {.tv_nsec = 1000000};
    control->writes++;
    while (control->hangs) {
        control->waits = true;
        nanosleep(&pause, NULL);
    }
    control->waits = false;
    uint32_t most = control->short_bytes;
    if (most > 0 && *bytes > most)
        *bytes = most;
    return control->error;
}

__attribute__((visibility("default"))) ssize_t pwritev2(int fd, const struct iovec *vectors, int count, off_t offset,
                                                        int flags) {
    struct iovec vector = *vectors; // the daemon writes from one place at a time
    if (count != 1)
        abort();
    int error = is_meant(fd) ? interfere(&vector.iov_len) : 0;
    if (error == 0)
        return syscall(SYS_pwritev2, fd, &vector, 1, offset, 0L, flags);
    errno = error;
    return -1;
}

__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) {
    int error = is_meant(fd) ? interfere(&bytes) : 0;
    if (error == 0)
        return syscall(SYS_pwrite64, fd, data, bytes, offset);
    errno = error;
    return -1;
}
