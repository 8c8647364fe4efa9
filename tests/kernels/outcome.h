// What a kernel made of a placed call, and whether it is what the reference made of it.
#pragma once

#include <stdio.h>

#include "kernels/kernels.h"
#include "placement.h"

// Lets a kernel that touches what it must not, or that this processor cannot run, fail its call alone.
void outcome_init(void);

struct outcome {
    struct gd_step_sums sums;
    const float *root_next, *maximum_next; // NULL: none
    bool faulted;
    const void *fault; // the address
};

// Runs the call. The outcome's state is the call's output, where it lies.
void outcome_of(const struct gd_kernels *kernels, const struct placed_call *placed, struct outcome *ret_outcome);

// Copies the state to memory of the module's own, which holds one outcome's.
void outcome_keep(struct outcome *outcome, size_t elems);

// Whether they are the same to the last bit and nothing but the outputs has been touched.
bool outcome_is_good(const struct outcome *outcome, const struct outcome *expected, const struct placed_call *placed);

// Prints what is wrong with an outcome that is not good.
void outcome_print_faults(const struct outcome *outcome, const struct outcome *expected,
                          const struct placed_call *placed, FILE *to);

// A hash of all sums and of the state, in which a NaN is a NaN: its sign and payload are the processor's choice.
uint64_t outcome_hash(const struct outcome *outcome, size_t elems);
