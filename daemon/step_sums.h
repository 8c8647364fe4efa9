// Step sums: the additive numbers one step yields per group.
#pragma once

#include <stdint.h>

enum {
    GD_LAG_MAX = 32, // the largest max_lag a run may ask for
};

// Sums over the coordinates of a chunk, a group, a shard or a whole snapshot. All fields merge by addition, except
// `max_abs` (maximum), `step_size_min` (minimum) and `first_non_finite_group` (minimum), so parts merge in any
// grouping; the order is fixed by the caller where bits matter. A non-finite element counts in `elements` and
// `non_finite` and contributes zero to everything else.
struct gd_step_sums {
    uint64_t elements;
    uint64_t zeros; // finite and equal to 0
    uint64_t non_finite;
    float max_abs;       // of finite elements
    double squared_norm; // sum g^2

    // Index m - 1 holds lag m. The two squared norms run over the coordinates whose group is present in both snapshots;
    // kernels leave them 0, the fold over groups fills them in.
    double dot[GD_LAG_MAX];               // sum g_t g_{t-m}
    double squared_norm_now[GD_LAG_MAX];  // sum g_t^2
    double squared_norm_past[GD_LAG_MAX]; // sum g_{t-m}^2

    // Over active coordinates (finite and not 0); e is the effective step a / (sqrt(vhat) + eps).
    uint64_t active;
    double A;                   // sum e_t
    double B;                   // sum (e_t g_t)^2
    double C;                   // sum |e_t - e_{t-1}|, where e_{t-1} exists
    double D;                   // sum (e_t - e_{t-1})^2, likewise
    double relative_square;     // sum g^2 / max(vhat, eps^2)
    uint64_t relative_elements; // elements that sum is over; kernels leave it 0, the fold over groups fills it in
    float step_size_min;        // INFINITY when nothing is active

    uint32_t first_non_finite_group; // UINT32_MAX: none
};

// Sets the neutral element of gd_step_sums_merge().
void gd_step_sums_init(struct gd_step_sums *sums);

// The same for sums that have no lags beyond `max_lag`, where they are left as they are: for groups by the thousand.
void gd_step_sums_init_lags(struct gd_step_sums *sums, uint32_t max_lag);

// Adds `part` to `sums`. Lags from `max_lag` + 1 on are not touched.
void gd_step_sums_merge(struct gd_step_sums *sums, const struct gd_step_sums *part, uint32_t max_lag);
