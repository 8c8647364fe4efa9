#include "passes.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/exponents.h"
#include "report.h"

enum { THREADS_MAX = 2, PAGE_BYTES = 4096, HISTOGRAM_EVERY = 8 };

static uint64_t next_random(uint64_t *state) { // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

// Near enough to normal for a benchmark: the sum of four uniform numbers.
static float draw(uint64_t *state) {
    uint64_t bits = next_random(state);
    int sum = (int)(bits & 0xffff) + (int)(bits >> 16 & 0xffff) + (int)(bits >> 32 & 0xffff) + (int)(bits >> 48);
    return ((float)sum - 131070.0f) * 2.6e-8f;
}

// The value as an element; all are normal in f16, or near enough to 0.
static void store_element(void *stream, enum gd_element_type type, uint64_t index, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if (type == GD_F32) {
        ((float *)stream)[index] = value;
    } else if (type == GD_BF16) {
        ((uint16_t *)stream)[index] = (uint16_t)(bits >> 16);
    } else {
        int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;
        uint32_t magnitude = exponent > 0 ? (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff) : 0;
        ((uint16_t *)stream)[index] = (uint16_t)(bits >> 31 << 15 | magnitude);
    }
}

static uint64_t whole_pages(uint64_t bytes) {
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

void bench_memory_init(struct bench_memory *memory, uint64_t elems, enum gd_element_type type, uint32_t lags) {
    uint64_t stream_bytes = whole_pages(elems * gd_element_bytes(type));
    uint64_t state_bytes = whole_pages(elems * sizeof(float));
    uint64_t random = 1;

    *memory = (struct bench_memory){.elems = elems, .type = type, .n_streams = lags + 1};
    memory->bytes = memory->n_streams * stream_bytes + 2 * state_bytes;
    // shared, like the memory of a run: its pages are mapped in the same way
    memory->base = mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory->base == MAP_FAILED)
        bench_fail("out of memory: %llu bytes", (unsigned long long)memory->bytes);
    for (uint32_t i = 0; i < memory->n_streams; i++) {
        memory->streams[i] = memory->base + i * stream_bytes;
        for (uint64_t k = 0; k < elems; k++)
            store_element(memory->streams[i], type, k, draw(&random));
    }
    for (uint32_t half = 0; half < 2; half++) {
        memory->roots[half] = (float *)(void *)(memory->base + memory->n_streams * stream_bytes + half * state_bytes);
        for (uint64_t k = 0; k < elems; k++)
            memory->roots[half][k] = 1e-3f + fabsf(draw(&random));
    }
}

void bench_memory_deinit(struct bench_memory *memory) {
    munmap(memory->base, memory->bytes);
}

// As the daemon has it with adam in mid-training.
static const struct gd_second_moment_step adam_step = {
    .gain = 0.001f,
    .keep = 1.0f,
    .measured = true,
    .has_before = true,
    .numerator = 1e-3f,
    .numerator_rise = 1e-8f,
    .scale = 1.00001f,
    .scale_before = 1.00002f,
    .scale_fall = 0.00001f,
    .outside = 1e-8f,
    .outside_before = 1e-8f,
    .relative_floor = 1e-16f,
};

// A thread's part of a pass.
struct part {
    struct bench_pass *pass;
    uint64_t first, end;
    struct gd_step_sums sums;
    uint64_t exponents[GD_EXPONENTS];
};

static void fill_chunk(const struct bench_pass *pass, uint64_t first, struct gd_chunk *ret_chunk) {
    const struct bench_memory *memory = pass->memory;
    size_t skip = first * gd_element_bytes(pass->memory->type);
    uint64_t left = memory->elems - first;

    *ret_chunk = (struct gd_chunk){
        .elems = left < GD_CHUNK_ELEMS ? left : GD_CHUNK_ELEMS,
        .type = pass->memory->type,
        .gradient = (uint8_t *)memory->streams[0] + skip,
        .lags = pass->lags,
    };
    for (uint32_t i = 0; i < pass->lags; i++)
        ret_chunk->history[i] = (uint8_t *)memory->streams[1 + i] + skip;
    if (pass->state) {
        ret_chunk->step = &adam_step;
        ret_chunk->root = memory->roots[0] + first;
        ret_chunk->root_next = memory->roots[1] + first;
        ret_chunk->past_caches = memory->elems > 1 << 18;
    }
}

static void *run_part(void *argument) {
    struct part *part = argument;
    const struct bench_pass *pass = part->pass;

    gd_step_sums_init(&part->sums);
    for (uint64_t first = part->first; first < part->end; first += GD_CHUNK_ELEMS) {
        struct gd_chunk chunk;
        struct gd_step_sums sums;
        fill_chunk(pass, first, &chunk);
        pass->kernels->analyse(&chunk, &sums);
        gd_step_sums_merge(&part->sums, &sums, pass->lags);
        if (pass->histogram)
            gd_exponents_count(chunk.gradient, chunk.type, chunk.elems, HISTOGRAM_EVERY, part->exponents);
    }
    return NULL;
}

// Clones for what the machine has: the widest loads, so that nothing but memory bounds them.
#ifdef __x86_64__
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t
read_words(const uint64_t *words, uint64_t n) {
    enum { AT_ONCE = 32 };
    uint64_t sums[AT_ONCE] = {0};
    for (uint64_t i = 0; i + AT_ONCE <= n; i += AT_ONCE)
        for (int k = 0; k < AT_ONCE; k++)
            sums[k] ^= words[i + (uint64_t)k];
    uint64_t all = 0;
    for (int k = 0; k < AT_ONCE; k++)
        all ^= sums[k];
    return all;
}

static volatile uint64_t read_result;

static void *read_part(void *argument) {
    struct part *part = argument;
    const struct bench_pass *pass = part->pass;
    size_t element_bytes = gd_element_bytes(pass->memory->type);
    uint64_t elems = part->end - part->first;

    for (uint32_t i = 0; i <= pass->lags; i++)
        read_result = read_words((const void *)((uint8_t *)pass->memory->streams[i] + part->first * element_bytes),
                                 elems * element_bytes / sizeof(uint64_t));
    for (uint32_t half = 0; pass->state && half < 2; half++)
        read_result = read_words((const void *)(pass->memory->roots[half] + part->first),
                                 elems * sizeof(float) / sizeof(uint64_t));
    return NULL;
}

static void run_parts(struct bench_pass *pass, void *(*run)(void *)) {
    struct part parts[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    const uint32_t n = pass->threads;
    uint64_t chunks = (pass->memory->elems + GD_CHUNK_ELEMS - 1) / GD_CHUNK_ELEMS;

    assert(n >= 1 && n <= THREADS_MAX);
    memset(parts, 0, sizeof(parts));
    for (uint32_t i = 0; i < n; i++) {
        uint64_t end = chunks * (i + 1) / n * GD_CHUNK_ELEMS;
        parts[i].pass = pass;
        parts[i].first = chunks * i / n * GD_CHUNK_ELEMS;
        parts[i].end = end < pass->memory->elems ? end : pass->memory->elems;
    }
    for (uint32_t i = 1; i < n; i++)
        if (pthread_create(&threads[i], NULL, run, &parts[i]) != 0)
            bench_fail("a thread cannot be started");
    run(&parts[0]);
    pass->sums = parts[0].sums;
    for (uint32_t i = 1; i < n; i++) {
        pthread_join(threads[i], NULL);
        gd_step_sums_merge(&pass->sums, &parts[i].sums, pass->lags);
    }
}

void bench_run_pass(void *context) {
    run_parts(context, run_part);
}

void bench_run_read(void *context) {
    run_parts(context, read_part);
}
