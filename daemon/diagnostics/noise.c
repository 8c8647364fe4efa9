#include "diagnostics/noise.h"

#include <math.h>

static const double DECAY = 0.99;

// An average of fewer estimates is too noisy to be called a peak: where one estimate is off by half of itself, which is
// much, a mean of 20 is off by a ninth, far from the half that ends the period.
static const uint64_t PEAK_ESTIMATES_MIN = 20;

static bool is_estimate(struct gd_noise_estimate estimate, struct gd_noise_estimate *ret_estimate) {
    if (!isfinite(estimate.S) || !isfinite(estimate.G2))
        return false;
    *ret_estimate = estimate;
    return true;
}

bool gd_noise_of_sizes(const struct gd_noise_batch *small, const struct gd_noise_batch *big,
                       struct gd_noise_estimate *ret_estimate) {
    double b = small->batch_size, B = big->batch_size;
    if (!(b > 0.0) || !(b < B))
        return false;
    struct gd_noise_estimate estimate = {
        .S = (small->squared_norm - big->squared_norm) / (1.0 / b - 1.0 / B),
        .G2 = (B * big->squared_norm - b * small->squared_norm) / (B - b),
    };
    return is_estimate(estimate, ret_estimate);
}

bool gd_noise_of_steps(const struct gd_noise_batch *now, const struct gd_noise_batch *past, double dot,
                       struct gd_noise_estimate *ret_estimate) {
    if (!(now->batch_size > 0.0) || !(past->batch_size > 0.0))
        return false;
    double squared_difference = now->squared_norm - 2.0 * dot + past->squared_norm;
    struct gd_noise_estimate estimate = {
        .S = squared_difference / (1.0 / now->batch_size + 1.0 / past->batch_size),
        .G2 = dot,
    };
    return is_estimate(estimate, ret_estimate);
}

static void add(struct gd_noise_average *average, const struct gd_noise_estimate *estimate) {
    average->S = DECAY * average->S + (1.0 - DECAY) * estimate->S;
    average->G2 = DECAY * average->G2 + (1.0 - DECAY) * estimate->G2;
    average->weight = DECAY * average->weight + (1.0 - DECAY);
}

// S, G2 and B_simple, whose tags follow one another.
static void set_scale(struct gd_noise_average *average, const struct gd_noise_estimate *estimate, enum gd_tag tag_S,
                      struct gd_values *values) {
    add(average, estimate);
    gd_values_set(values, tag_S, estimate->S);
    gd_values_set(values, tag_S + 1, estimate->G2);
    if (average->G2 > 0.0) // both carry the same weight
        gd_values_set(values, tag_S + 2, average->S / average->G2);
}

// Whether the averaged trace has just fallen to half of its peak.
static bool ends_critical_period(struct gd_noise_state *state, int64_t step) {
    double trace = (state->sizes.S + state->sizes.G2) / state->sizes.weight;
    if (++state->traces < PEAK_ESTIMATES_MIN || state->announced)
        return false;
    if (trace > state->peak) {
        state->peak = trace;
        state->peak_step = step;
    }
    if (!(trace <= state->peak / 2.0) || !(state->peak > 0.0))
        return false;
    state->announced = 1;
    return true;
}

bool gd_noise_values(struct gd_noise_state *state, const struct gd_noise_step *step, struct gd_values *values) {
    struct gd_noise_estimate estimate;

    if (gd_noise_of_steps(&step->big, &step->past, step->dot, &estimate))
        set_scale(&state->steps, &estimate, GD_TAG_NOISE_SINGLE_S, values);
    if (!gd_noise_of_sizes(&step->small, &step->big, &estimate))
        return false;
    set_scale(&state->sizes, &estimate, GD_TAG_NOISE_S, values);
    gd_values_set(values, step->labels_from_model ? GD_TAG_FISHER_TRACE : GD_TAG_FISHER_TRACE_EMPIRICAL,
                  estimate.S + estimate.G2);
    return ends_critical_period(state, step->step);
}
