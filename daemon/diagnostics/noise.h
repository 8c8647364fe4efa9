// Gradient noise scale: McCandlish et al., "An empirical model of large-batch training", arXiv 1812.06162, appendix
// A.1. Fisher information and the critical learning period: Achille et al., arXiv 1711.08856.
//
// A mean over b examples has E|g_b|^2 = |G|^2 + tr(Sigma) / b, with G the true gradient and Sigma the covariance of one
// example's. Two means tell the two apart: G2 estimates |G|^2, S estimates tr(Sigma), neither with a bias; so one
// step's may be negative, and their ratio is taken from averages. Every gradient here is as it was before clipping.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tags.h"

// A gradient averaged over batch_size examples. batch_size 0: there is none to go by.
struct gd_noise_batch {
    double batch_size;
    double squared_norm;
};

struct gd_noise_estimate {
    double S, G2;
};

// G2 = (b_big |g_big|^2 - b_small |g_small|^2) / (b_big - b_small), S = (|g_small|^2 - |g_big|^2) / (1/b_small -
// 1/b_big). Returns false where there is no such pair, with the small batch smaller than the big one, or where a value
// is not finite. Pure.
bool gd_noise_of_sizes(const struct gd_noise_batch *small, const struct gd_noise_batch *big,
                       struct gd_noise_estimate *ret_estimate);

// From two steps in succession, `dot` being their dot product: G2 = <g_t, g_{t-1}> and S = |g_t - g_{t-1}|^2 /
// (1/b_t + 1/b_{t-1}), which for one batch size is b |g_t - g_{t-1}|^2 / 2. Returns false as the other does. Pure.
bool gd_noise_of_steps(const struct gd_noise_batch *now, const struct gd_noise_batch *past, double dot,
                       struct gd_noise_estimate *ret_estimate);

// S and G2 averaged apart: each estimate counts 0.99 times as much as the next one, so that some 100 are averaged. The
// sums are kept with the weight they have, which makes the first averages right, too.
struct gd_noise_average {
    double S, G2;
    double weight; // 1 - 0.99^n after n estimates
};

// What is kept from step to step.
struct gd_noise_state {
    struct gd_noise_average sizes; // from two batch sizes
    struct gd_noise_average steps; // from two steps
    uint64_t traces;               // estimates of the Fisher trace so far
    double peak;                   // the largest averaged trace
    int64_t peak_step;
    uint64_t announced; // 1: the critical period's end was told
};

struct gd_noise_step {
    int64_t step;
    bool labels_from_model;
    struct gd_noise_batch big;   // the step's gradient
    struct gd_noise_batch small; // of smaller batches of the same step
    struct gd_noise_batch past;  // the gradient one stride earlier
    double dot;                  // between big and past
};

// Moves the averages on and sets the family's tags. Returns true once a run: the averaged Fisher trace S + G2 has
// fallen to half of its peak (state->peak at state->peak_step), which ends the critical period. Pure.
bool gd_noise_values(struct gd_noise_state *state, const struct gd_noise_step *step, struct gd_values *values);
