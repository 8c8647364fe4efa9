#include "arena.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ARENA_ALIGNMENT = 16,       // of max_align_t: what protobuf-c's structs may need
    ARENA_KEPT_BYTES = 1 << 20, // an ordinary message needs less, with 4,096 rates and 1,024 scalars too
};

static void *arena_allocate(void *data, size_t bytes) {
    struct gd_arena *arena = data;

    size_t padding = -arena->used_bytes % ARENA_ALIGNMENT;
    size_t left = arena->capacity_bytes - arena->used_bytes;
    if (padding > left || bytes > left - padding) {
        arena->exhausted = true;
        return NULL;
    }
    void *block = arena->base + arena->used_bytes + padding;
    arena->used_bytes += padding + bytes;
    return block;
}

static void arena_free(void *data, void *block) {
    (void)data;
    (void)block;
}

int gd_arena_init(struct gd_arena *arena, size_t capacity_bytes) {
    uint8_t *base = malloc(capacity_bytes);
    if (!base)
        return -ENOMEM;
    *arena = (struct gd_arena){
        .base = base,
        .capacity_bytes = capacity_bytes,
        .allocator = {.alloc = arena_allocate, .free = arena_free, .allocator_data = arena},
    };
    return 0;
}

// One message out of the ordinary must not cost the daemon its memory for good.
static void release_pages(struct gd_arena *arena) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)arena->base + ARENA_KEPT_BYTES + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)arena->base + arena->capacity_bytes) / page * page;
    if (start < end)
        madvise((void *)start, end - start, MADV_DONTNEED);
}

void gd_arena_reset(struct gd_arena *arena) {
    if (arena->used_bytes > ARENA_KEPT_BYTES)
        release_pages(arena);
    arena->used_bytes = 0;
    arena->exhausted = false;
}

void gd_arena_deinit(struct gd_arena *arena) {
    free(arena->base);
    *arena = (struct gd_arena){0};
}
