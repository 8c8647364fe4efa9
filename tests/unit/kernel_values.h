// What the kernels' tests feed them: rules, and random values that are the same on every machine.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum distribution {
    GAUSSIAN,
    SPARSE,     // nine in ten are zeros of either sign
    LOGNORMAL,  // six orders of magnitude
    NON_FINITE, // one in ten is NaN or an infinity
    SUBNORMAL,  // of the elements' type; in f32 and bf16 squares and products underflow
    HUGE_SIZED, // +-the type's largest among small values: in f32 and bf16 squares overflow
    DISTRIBUTIONS,
};

extern const char *const distribution_names[DISTRIBUTIONS];
extern const char *const element_type_names[GD_F16 + 1];

// A rule as a kernel sees it.
struct rule_form {
    const char *name;
    bool state;                        // has a second moment
    bool maximum;                      // and its running maximum
    struct gd_second_moment_step step; // max_scale 0 where there is no maximum
};

extern const struct rule_form rule_forms[];
extern const size_t n_rule_forms;

// The form of that name, which must exist.
const struct rule_form *rule_form_named(const char *name);

// Random numbers are a function of `state`, which they move on.
uint64_t random_bits(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t bound);

// A value to be rounded to `type`.
float draw_value(enum distribution distribution, enum gd_element_type type, uint64_t *state);

// The root of a second moment; one in five was never counted.
float draw_root(uint64_t *state);

// ... and of its running maximum, up to twice the root scaled.
float draw_maximum(float root, float max_scale, uint64_t *state);
