// A step's copy, by one thread and by several, past the caches and through them: each element in its place, and nothing
// else touched.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "client/internal.h"

enum { GROUPS_MAX = 40, CASES = 400, CANARY = 0xa5 };

static uint64_t random_state;

static uint32_t random_below(uint32_t bound) { // splitmix64
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(((z ^ (z >> 31)) >> 32) * bound >> 32);
}

struct step {
    struct gradientd_run run;
    struct client_group groups[GROUPS_MAX];
    const void *gradients[GROUPS_MAX]; // NULL: absent
    uint8_t *expected, *elements;
    size_t bytes;
};

// The group's gradient, and what of it belongs to the slot.
static void add_group(struct step *step, uint32_t group, uint64_t numel) {
    struct gradientd_run *run = &step->run;
    size_t source_bytes = run->vector.narrows ? sizeof(double) : run->vector.element_bytes;
    uint8_t *gradient = malloc(numel * source_bytes);
    uint8_t *place = step->expected + run->elements * run->vector.element_bytes;

    step->groups[group] = (struct client_group){.numel = numel, .offset = run->elements};
    run->elements += numel;
    for (uint64_t i = 0; i < numel; i++) {
        double value = (double)random_below(1000000) * 1e-3 + 1e-9; // no float
        float narrow = (float)value;
        uint16_t half = (uint16_t)random_below(1 << 16);
        const void *from = run->vector.narrows              ? (const void *)&value
                           : run->vector.element_bytes == 2 ? (const void *)&half
                                                            : &narrow;
        memcpy(gradient + i * source_bytes, from, source_bytes);
        memcpy(place + i * run->vector.element_bytes, run->vector.narrows ? &narrow : from, run->vector.element_bytes);
    }
    step->gradients[group] = gradient;
    if (random_below(4) > 0)
        return;
    step->gradients[group] = NULL;
    memset(place, CANARY, numel * run->vector.element_bytes);
    free(gradient);
}

static void make_step(struct step *step, uint64_t seed) {
    enum { ELEMS_MAX = 20000 };
    struct gradientd_run *run = &step->run;

    random_state = seed;
    memset(step, 0, sizeof(*step));
    run->groups = step->groups;
    run->n_groups = 1 + random_below(GROUPS_MAX);
    run->vector.narrows = random_below(3) == 0;
    run->vector.element_bytes = run->vector.narrows || random_below(2) ? 4 : 2;
    run->vector.streams = random_below(2);
    step->expected = malloc((size_t)GROUPS_MAX * ELEMS_MAX * 4);
    for (uint32_t i = 0; i < run->n_groups; i++)
        add_group(step, i, 1 + random_below(random_below(2) ? 20 : ELEMS_MAX));
    step->bytes = run->elements * run->vector.element_bytes;
    step->elements = malloc(step->bytes + 64);
    memset(step->elements, CANARY, step->bytes + 64);
}

static void check_step(struct step *step, uint64_t seed, uint32_t threads) {
    cr_assert_eq(memcmp(step->elements, step->expected, step->bytes), 0, "seed %lu, %u threads", (unsigned long)seed,
                 threads);
    for (size_t i = step->bytes; i < step->bytes + 64; i++)
        cr_assert_eq(step->elements[i], CANARY, "seed %lu, %u threads: wrote behind", (unsigned long)seed, threads);
    for (uint32_t i = 0; i < step->run.n_groups; i++)
        free((void *)(uintptr_t)step->gradients[i]);
    free(step->expected);
    free(step->elements);
}

Test(client_gather, one_thread) {
    for (uint64_t seed = 0; seed < CASES; seed++) {
        struct step step;
        make_step(&step, seed);
        client_copy_elements(&step.run, &step.run.vector, step.elements, step.gradients, 0, step.run.elements);
        check_step(&step, seed, 1);
    }
}

Test(client_gather, several_threads) {
    for (uint64_t seed = 0; seed < CASES; seed++) {
        uint32_t threads = 2 + (uint32_t)(seed % (GRADIENTD_COPY_THREADS_MAX - 1));
        struct client_gather *gather;
        struct step step;
        make_step(&step, seed);
        cr_assert_eq(client_gather_new(&step.run, threads, &gather), 0);
        client_gather_step(gather, step.elements, step.gradients);
        client_gather_free(gather);
        check_step(&step, seed, threads);
    }
}

// The same helpers, step after step.
Test(client_gather, many_steps) {
    struct client_gather *gather;
    struct step step;
    make_step(&step, 12345);
    cr_assert_eq(client_gather_new(&step.run, 3, &gather), 0);
    for (int i = 0; i < 500; i++) {
        memset(step.elements, CANARY, step.bytes);
        client_gather_step(gather, step.elements, step.gradients);
        cr_assert_eq(memcmp(step.elements, step.expected, step.bytes), 0, "step %d", i);
    }
    client_gather_free(gather);
    check_step(&step, 12345, 3);
}

Test(client_gather, what_is_copied_past_the_caches) {
    cr_expect(!client_copy_streams(1 << 20));
    cr_expect(client_copy_streams(UINT64_C(800) << 20));
}

Test(client_gather, a_streamed_copy_of_every_length_at_every_offset) {
    enum { BYTES_MAX = 2300 };
    static uint8_t from[BYTES_MAX + 64], to[BYTES_MAX + 128];
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (uint8_t)(i * 7 + 1);
    for (size_t bytes = 0; bytes <= BYTES_MAX; bytes += bytes < 2000 ? 97 : 1) {
        for (size_t offset = 0; offset < 64; offset++) {
            memset(to, CANARY, sizeof(to));
            client_copy_stream(to + offset, from + offset % 3, bytes);
            client_copy_fence();
            cr_assert_eq(memcmp(to + offset, from + offset % 3, bytes), 0, "%zu bytes at %zu", bytes, offset);
            cr_assert(to[offset + bytes] == CANARY && (offset == 0 || to[offset - 1] == CANARY), "%zu bytes at %zu",
                      bytes, offset);
        }
    }
}
