// Curvature along the trajectory, from two points of it and the gradients there on the same samples.
#pragma once

#include "kernels/kernels.h"
#include "side_tags.h"

// Sets the family's tags from the sums over x = PARAMETERS and g = PROBE_GRADIENT, and raises *lipschitz_max, the
// largest |dg| / |dx| so far. `learning_rate` is NaN unless the rule is sgd with one rate for all. Pure.
void gd_curvature_values(const struct gd_difference_sums *sums, double learning_rate, double *lipschitz_max,
                         struct gd_side_values *values);

// Sets staleness/lr_bound, mu / (s L sqrt(t)), where mu > 0 and L = `lipschitz_max` > 0 (Dai et al., arXiv 1810.03264).
// Pure.
void gd_staleness_bound(double mu, uint32_t staleness, double lipschitz_max, uint64_t optimizer_step,
                        struct gd_side_values *values);
