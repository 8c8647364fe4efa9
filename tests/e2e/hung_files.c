// Preloaded into a daemon: files and directories whose name ends in ".hung", or in ".hung.tmp", lie on a file system
// that never answers. fstat and close on them do not return, nor does mkdirat, as in the kernel on a dead network
// mount.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_hung_name(const char *name, size_t bytes) {
    if (bytes >= 4 && memcmp(name + bytes - 4, ".tmp", 4) == 0)
        bytes -= 4;
    return bytes >= 5 && memcmp(name + bytes - 5, ".hung", 5) == 0;
}

static bool is_hung(int fd) {
    char link[64], name[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, name, sizeof(name));
    return bytes > 0 && is_hung_name(name, (size_t)bytes);
}

static void wait_forever(void) {
    for (;;)
        pause();
}

__attribute__((visibility("default"))) int fstat(int fd, struct stat *ret_status) {
    if (is_hung(fd))
        wait_forever();
    return fstatat(fd, "", ret_status, AT_EMPTY_PATH);
}

__attribute__((visibility("default"))) int close(int fd) {
    if (is_hung(fd))
        wait_forever();
    int (*next)(int);
    *(void **)&next = dlsym(RTLD_NEXT, "close");
    return next(fd);
}

__attribute__((visibility("default"))) int mkdirat(int directory, const char *name, mode_t mode) {
    if (is_hung_name(name, strlen(name)))
        wait_forever();
    int (*next)(int, const char *, mode_t);
    *(void **)&next = dlsym(RTLD_NEXT, "mkdirat");
    return next(directory, name, mode);
}
