#include "arena.h"

#include <errno.h>
#include <stdlib.h>

enum { ARENA_ALIGNMENT = 16 }; // of max_align_t: what protobuf-c's structs may need

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

void gd_arena_reset(struct gd_arena *arena) {
    arena->used_bytes = 0;
    arena->exhausted = false;
}

void gd_arena_deinit(struct gd_arena *arena) {
    free(arena->base);
    *arena = (struct gd_arena){0};
}
