// Random chunks for the kernels' tests, and what the mathematics says of one element's second moment.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel_values.h"
#include "kernels/kernels.h"

// A chunk with buffers of its own, a function of the arguments alone: gradient and history on random alignments of
// their element (one lag in four is missing), a state of which one root in five was never counted.
struct kernel_case {
    uint64_t seed;
    const struct rule_form *form;
    enum distribution distribution;
    struct gd_chunk chunk;
    const float *gradient; // what the chunk's elements are worth
    const float *history[GD_LAG_MAX];
    char text[160];
    struct case_buffer *buffers;
    size_t n_buffers;
};

struct kernel_case *kernel_case_new(uint64_t seed, enum gd_element_type type, size_t elems, uint32_t lags,
                                    const struct rule_form *form, enum distribution distribution);
void kernel_case_free(struct kernel_case *c);

// What to print where a case fails.
const char *kernel_case_text(const struct kernel_case *c);

// Whether everything a kernel may only read, and what lies right behind the buffers it writes, is as it was.
bool kernel_case_is_intact(const struct kernel_case *c);

// Moves gradient and history by one element, to another alignment.
void kernel_case_shift(struct kernel_case *c);

// The float, or +0 where it is not finite.
float cleaned(float x);

#define U 0x1p-24L // one rounding to float, relative

// An exact value and how far a float computation of it may be off.
struct approx {
    long double value;
    long double error;
};

// `value` computed by one float operation on operands that leave it off by `error`: the rounding adds U relative, or
// half the smallest subnormal.
struct approx rounded(long double value, long double error);

// One element's terms. The values come from the textbook formulas, the errors from following the contract's operations.
struct element_terms {
    bool active;
    bool compared; // e_{t-1} exists
    struct approx root_next;
    struct approx maximum_next;
    struct approx step_size;
    struct approx squared_update;
    struct approx absolute_change;
    struct approx squared_change;
    struct approx relative_square;
};

// `maximum` is NULL where the rule has none.
struct element_terms element_terms(const struct gd_second_moment_step *step, float gradient, float root,
                                   const float *maximum);
