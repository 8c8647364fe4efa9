// How few directions the last gradients lie in, from their Gram matrix K, K_ij = <g_{t-i}, g_{t-j}>: dot products that
// every step yields for the coherence anyway.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "step_sums.h"
#include "tags.h"

enum { GD_WINDOW_MAX = GD_LAG_MAX + 1 };

// The matrix of a window of `size` gradients (at least 2), the latest first: symmetric, entry (i, j) at
// [i * size + j]. NaN: there is no such dot product.
struct gd_gram {
    uint32_t size;
    double entry[GD_WINDOW_MAX * GD_WINDOW_MAX];
};

// A symmetric tridiagonal matrix with the eigenvalues of K divided by its trace: they add up to 1.
struct gd_spectrum {
    uint32_t size;
    double diagonal[GD_WINDOW_MAX];
    double off_square[GD_WINDOW_MAX]; // [i]: the square of what couples i and i + 1
    double norm_square;               // of the whole matrix, sum K_ij^2 / (tr K)^2
};

// Returns false where there is none: an entry is missing or not finite, or all are 0. Pure.
bool gd_subspace_spectrum(const struct gd_gram *gram, struct gd_spectrum *ret_spectrum);

// The largest eigenvalue, to 1e-9 of itself; between 1 / size and 1. Pure.
double gd_subspace_largest(const struct gd_spectrum *spectrum);

// How many eigenvalues are below x. Pure.
uint32_t gd_subspace_below(const struct gd_spectrum *spectrum, double x);

// Sets the family's tags: (tr K)^2 / tr(K^2), between 1 and size, and the largest eigenvalue's share. Pure.
void gd_subspace_values(const struct gd_spectrum *spectrum, struct gd_values *values);

// The cosine K_ij / sqrt(K_ii K_jj); NaN where there is none. Pure.
double gd_subspace_cosine(const struct gd_gram *gram, uint32_t i, uint32_t j);
