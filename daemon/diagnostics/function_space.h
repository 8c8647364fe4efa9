// How far the network has moved, as a function and as a vector of parameters: Benjamin, Rolnick and Kording, "Measuring
// and regularizing networks in function space", arXiv 1805.08289.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "side_tags.h"

// What there is to measure from.
struct gd_movement {
    const struct gd_difference_sums *sums;
    bool has_before; // a snapshot one stride ago
    bool has_start;  // a first snapshot before this one
};

// Sets the tags of PARAMETERS. Pure, like the others.
void gd_parameters_values(const struct gd_movement *parameters, struct gd_side_values *values);

// Sets the tags of OUTPUTS on `examples` examples. `parameters` is NULL where the snapshot has none; `same_step`: both
// were measured from the same step one stride ago, `same_start`: and from the same first one.
void gd_function_values(const struct gd_movement *outputs, uint64_t examples, const struct gd_movement *parameters,
                        bool same_step, bool same_start, struct gd_side_values *values);
