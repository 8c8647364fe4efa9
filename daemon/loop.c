#include "loop.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Where the table of descriptors goes when malloc has no room for it: enough for 2 million. Pages that are not used
// cost nothing.
enum { RESERVE_BYTES = 16 << 20 };

static struct {
    void *base;
    bool used;
} reserve;

// The loop's thread alone calls it: libuv reallocates nothing else.
static void *reallocate(void *block, size_t bytes) {
    if (block && block == reserve.base)
        return bytes <= RESERVE_BYTES ? block : NULL;
    void *moved = realloc(block, bytes);
    if (moved || bytes == 0 || bytes > RESERVE_BYTES || reserve.used)
        return moved;
    if (block) {
        size_t block_bytes = malloc_usable_size(block);
        memcpy(reserve.base, block, block_bytes < bytes ? block_bytes : bytes);
        free(block);
    }
    reserve.used = true;
    return reserve.base;
}

static void release(void *block) {
    if (block && block == reserve.base)
        reserve.used = false;
    else
        free(block);
}

static int set_allocator(void) {
    reserve.base =
        mmap(NULL, RESERVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserve.base == MAP_FAILED)
        return -ENOMEM;
    return uv_replace_allocator(malloc, reallocate, calloc, release);
}

// In a signal handler, so without gd_log().
static void say_why(int number) {
    static const char text[] = "gradientd: cannot start: no memory or no thread for the workers\n";
    (void)number;
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)written; // nobody is left to be told
    _exit(EXIT_FAILURE);
}

static void do_nothing(uv_work_t *work) {
    (void)work;
}

static void start_pool(uv_loop_t *loop) {
    static uv_work_t first;
    signal(SIGABRT, say_why);
    uv_queue_work(loop, &first, do_nothing, NULL);
    signal(SIGABRT, SIG_DFL);
}

int gd_loop_init(uv_loop_t *loop, uint32_t workers) {
    char threads[16];
    snprintf(threads, sizeof(threads), "%u", workers);
    if (setenv("UV_THREADPOOL_SIZE", threads, 1) < 0) // read by libuv when the pool starts
        return -ENOMEM;
    int result = set_allocator();
    if (result == 0)
        result = uv_loop_init(loop);
    if (result == 0)
        start_pool(loop);
    return result;
}
