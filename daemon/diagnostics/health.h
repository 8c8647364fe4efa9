// Health of the gradient itself: size, zeros, what is not finite.
#pragma once

#include <stdint.h>

#include "step_sums.h"
#include "tags.h"

// What has been seen since values were last written: a thinned series shows what spiked between its points.
struct gd_health_state {
    double norm_max;
    double max_abs;
    double non_finite;
};

// Adds a step to the window and sets the family's tags. Pure.
void gd_health_values(struct gd_health_state *state, const struct gd_step_sums *sums, struct gd_values *values);
