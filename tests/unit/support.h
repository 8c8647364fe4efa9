// What the tests of files, memory and runs share.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "memory.h"
#include "message.h"

// How many descriptors are open: equal before and after what must neither leak one nor close another's. (The next
// number open() gives would miss a leak above it.)
int count_fds(void);

// Whether that many are open, at once or soon: what a client sent is closed on a thread of its own.
bool fds_return_to(int n);

// A new memfd of `bytes` bytes, all of them allocated, with `seals`; the caller's.
int new_memfd(uint64_t bytes, int seals);

// The seals a run's memory must have.
extern const int needed_seals;

// A new empty file that is open with `flags` and has no name any more; the caller's.
int new_file(int flags);

// A valid OpenRun: adam with b2 0.999 and eps 1e-8 in one parameter group, groups "group0" ..., thinning, max_lag 3,
// inflight 2. The caller's, gd_open_run_free().
struct gd_open_run *new_open_run(const uint64_t *numel, uint32_t n_groups);

// Shows its groups one by one as decode does it, by the first `fold_depth` components of their names (0: all).
void show_groups(struct gd_open_run *open_run, enum gd_per_group per_group, uint32_t fold_depth);

// Memory as the run's client makes it, attached.
void attach_new_memory(struct gd_memory *memory, const struct gd_open_run *open_run);

uint64_t next_random(uint64_t *state);  // splitmix64
double random_unit(uint64_t *state);    // in [0, 1)
float random_gradient(uint64_t *state); // about normal, never 0
