// Preloaded into a daemon: the allocations that a test chooses fail. Memory, mappings and threads count.
#include "failing_allocations.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

// glibc's own, under the names that need no dlsym(), which allocates.
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);

static struct failing_allocations *shared;

static void *map(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel's answer
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

__attribute__((constructor)) static void find_shared(void) {
    const char *path = getenv("GRADIENTD_TEST_ALLOCATIONS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *memory = map(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    shared = memory == MAP_FAILED ? NULL : memory;
}

static bool fails(void) {
    if (!shared)
        return false;
    int64_t left = atomic_fetch_sub(&shared->left, 1);
    if (left > 1 || left <= 1 - shared->in_a_row)
        return false;
    errno = ENOMEM;
    return true;
}

EXPORTED void *malloc(size_t bytes) {
    return fails() ? NULL : __libc_malloc(bytes);
}

EXPORTED void *calloc(size_t count, size_t bytes) {
    return fails() ? NULL : __libc_calloc(count, bytes);
}

EXPORTED void *realloc(void *block, size_t bytes) {
    return fails() ? NULL : __libc_realloc(block, bytes);
}

EXPORTED void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    return fails() ? MAP_FAILED : map(address, bytes, protection, flags, fd, offset);
}

EXPORTED int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *context) {
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (fails())
        return EAGAIN;
    *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    return next(thread, attributes, run, context);
}
