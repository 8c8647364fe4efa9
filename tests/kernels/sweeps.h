// All calls that are checked: each is made up, given to a visitor and forgotten.
#pragma once

#include "calls.h"

// Visits the calls with the numbers `first`, `first` + `stride` and so on. A call is a function of seed and number.
struct sweeper {
    uint64_t seed, first, stride;
    void (*visit)(void *context, const struct kernel_call *call);
    void *context;
    uint64_t next; // number
};

// Every length to 300 at every offset; every number of lags with every rule and distribution; special values in every
// lane; long chunks.
void sweep_all(struct sweeper *sweeper);

// Of them, those with special values: NaN, infinities, subnormals and extremes among ordinary elements.
void sweep_specials(struct sweeper *sweeper);

// Counts the next call. Returns whether it is to be visited, then with the random state it is drawn from.
bool sweeper_takes_next(struct sweeper *sweeper, uint64_t *ret_state);
void sweeper_visit(struct sweeper *sweeper, const char *sweep, struct call_shape shape, uint64_t *state);

// Any rule and distribution, up to 32 lags and any offset.
struct call_shape random_shape(enum gd_element_type type, size_t elems, uint64_t *state);
