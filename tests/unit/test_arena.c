#include "arena.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *allocate(struct gd_arena *arena, size_t bytes) {
    return arena->allocator.alloc(arena->allocator.allocator_data, bytes);
}

static struct gd_arena arena;

static void new_arena(size_t capacity_bytes) {
    cr_assert_eq(gd_arena_init(&arena, capacity_bytes), 0);
}

static void free_arena(void) {
    gd_arena_deinit(&arena);
}

Test(arena, everything_up_to_the_bound_is_given, .fini = free_arena) {
    new_arena(64);
    cr_expect_not_null(allocate(&arena, 64));
    cr_expect_not(arena.exhausted);
}

Test(arena, nothing_beyond_the_bound_is_given, .fini = free_arena) {
    const struct {
        size_t first, second;
        bool given;
    } cases[] = {
        {0, 64, true},        {0, 65, false},  {16, 48, true},       {16, 49, false},
        {17, 32, true},       {17, 33, false}, {48, 16, true},       {48, 17, false},
        {63, 1, false},       {64, 1, false},  {1, SIZE_MAX, false}, {1, SIZE_MAX - 15, false},
        {0, SIZE_MAX, false},
    };

    new_arena(64);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        gd_arena_reset(&arena);
        cr_assert_not_null(allocate(&arena, cases[i].first), "case %zu", i);
        cr_assert_not(arena.exhausted, "case %zu", i);
        cr_expect_eq(allocate(&arena, cases[i].second) != NULL, cases[i].given, "case %zu", i);
        cr_expect_eq(arena.exhausted, !cases[i].given, "case %zu", i);
        cr_expect(arena.used_bytes <= 64, "case %zu", i);
    }
}

Test(arena, exhausted_stays_until_the_reset, .fini = free_arena) {
    new_arena(64);
    cr_expect_null(allocate(&arena, 65));
    cr_expect_not_null(allocate(&arena, 1));
    cr_expect(arena.exhausted);
    gd_arena_reset(&arena);
    cr_expect_not(arena.exhausted);
}

Test(arena, a_reset_gives_everything_back, .fini = free_arena) {
    new_arena(64);
    void *first = allocate(&arena, 64);
    for (int i = 0; i < 3; i++) {
        gd_arena_reset(&arena);
        cr_expect_eq(allocate(&arena, 64), first);
    }
}

static size_t resident_bytes(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *start = arena.base - (uintptr_t)arena.base % page;
    size_t pages = arena.capacity_bytes / page;
    unsigned char resident[4096];
    size_t count = 0;

    cr_assert_leq(pages, sizeof(resident));
    cr_assert_eq(mincore(start, pages * page, resident), 0);
    for (size_t i = 0; i < pages; i++)
        count += resident[i] & 1;
    return count * page;
}

Test(arena, a_reset_keeps_little_memory, .fini = free_arena) {
    enum { CAPACITY_BYTES = 8 << 20, KEPT_BYTES = 1 << 20 };
    new_arena(CAPACITY_BYTES);
    for (int i = 0; i < 2; i++) {
        void *block = allocate(&arena, CAPACITY_BYTES);
        cr_assert_not_null(block);
        memset(block, 1, CAPACITY_BYTES);
        cr_expect_gt(resident_bytes(), CAPACITY_BYTES - KEPT_BYTES);
        gd_arena_reset(&arena);
        cr_expect_lt(resident_bytes(), KEPT_BYTES + (64 << 10));
    }
}

Test(arena, blocks_are_aligned_and_apart, .fini = free_arena) {
    uint8_t *blocks[64];

    new_arena(1 << 16);
    for (size_t bytes = 1; bytes <= 64; bytes++) {
        uint8_t *block = allocate(&arena, bytes);
        cr_assert_not_null(block);
        cr_expect_eq((uintptr_t)block % 16, 0, "%zu bytes", bytes);
        memset(block, (int)bytes, bytes);
        blocks[bytes - 1] = block;
    }
    for (size_t bytes = 1; bytes <= 64; bytes++)
        for (size_t i = 0; i < bytes; i++)
            cr_assert_eq(blocks[bytes - 1][i], bytes, "byte %zu of block %zu", i, bytes);
}

Test(arena, freeing_gives_nothing_back, .fini = free_arena) {
    new_arena(64);
    void *block = allocate(&arena, 48);
    arena.allocator.free(arena.allocator.allocator_data, block);
    cr_expect_null(allocate(&arena, 48));
}
