// A model's worth of memory as the daemon sees it, and what can be done with it: a plain read, and the fused pass.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum { BENCH_STREAMS_MAX = 1 + GD_LAG_MAX };

// Shared memory, touched, that holds a gradient, its lags and the optimiser state's two halves.
struct bench_memory {
    uint64_t elems;
    enum gd_element_type type;
    void *streams[BENCH_STREAMS_MAX]; // of `type`
    float *roots[2];
    uint32_t n_streams;
    uint8_t *base;
    uint64_t bytes;
};

// `lags` + 1 streams, about normal times 1e-3. Ends the program where there is no memory for them.
void bench_memory_init(struct bench_memory *memory, uint64_t elems, enum gd_element_type type, uint32_t lags);
void bench_memory_deinit(struct bench_memory *memory);

struct bench_pass {
    const struct bench_memory *memory;
    const struct gd_kernels *kernels;
    uint32_t lags;            // at most those the memory has
    bool state;               // with the second moment and the Adam terms
    bool histogram;           // with the exponents of one block in eight
    uint32_t threads;         // 1 or 2
    struct gd_step_sums sums; // what the last pass gave
};

// The fused pass over all elements, chunk by chunk as the daemon does it. `context` is a struct bench_pass.
void bench_run_pass(void *context);

// Reads the bytes that pass reads, and the state's once more for what it writes.
void bench_run_read(void *context);
