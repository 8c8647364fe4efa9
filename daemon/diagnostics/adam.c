#include "diagnostics/adam.h"

#include <assert.h>
#include <math.h>

#include "arithmetic.h"

// Steps after which a second moment has forgotten 95 % of what was before: 3 / (1 - b2), e^-3 = 0.05.
static uint64_t memory_steps(double beta2) {
    return (uint64_t)ceil(3.0 / (1.0 - beta2));
}

bool gd_adam_has_second_moment(const struct gd_adam_config *config) {
    return config->rule != GD_RULE_SGD;
}

uint32_t gd_adam_state_arrays(const struct gd_adam_config *config) {
    if (config->rule == GD_RULE_SGD)
        return 0;
    return config->rule == GD_RULE_AMSGRAD ? 2 : 1;
}

// Whether v forgets: otherwise what came before an attachment in mid-training never becomes unimportant.
static bool rule_forgets(enum gd_rule rule) {
    return rule == GD_RULE_ADAM || rule == GD_RULE_ADAMW || rule == GD_RULE_RMSPROP;
}

static uint64_t silent_steps(const struct gd_adam_config *config, bool exact, double beta2_max) {
    if (exact || config->rule == GD_RULE_SGD)
        return 0;
    return rule_forgets(config->rule) ? memory_steps(beta2_max) : UINT64_MAX;
}

struct gd_adam_step gd_adam_begin_step(const struct gd_adam_config *config, struct gd_adam_state *state,
                                       uint64_t optimizer_step, bool exact, double beta2_max) {
    struct gd_adam_step step = {.optimizer_step = optimizer_step};

    if (state->applied == 0) {
        state->first_optimizer_step = optimizer_step;
        state->silent = silent_steps(config, exact, beta2_max);
    } else {
        assert(optimizer_step > state->optimizer_step);
        step.missing = optimizer_step - state->optimizer_step - 1;
    }
    step.measured = state->applied >= state->silent;
    state->applied++;
    state->optimizer_step = optimizer_step;
    return step;
}

// 1 - b2^t where vhat is corrected, else 1.
static double bias_correction(const struct gd_adam_config *config, double beta2, uint64_t t) {
    bool corrected = config->bias_correction;
    if (config->rule == GD_RULE_AMSGRAD)
        corrected = config->maximum_of != GD_MAXIMUM_UNCORRECTED;
    return corrected ? 1.0 - gd_power(beta2, t) : 1.0;
}

// v <- retained v + (1 - retained) g^2, in the form that does not cancel.
static void set_average(struct gd_second_moment_step *step, double retained) {
    step->from_square = retained < 0.5;
    step->gain = (float)(step->from_square ? retained : 1.0 - retained);
}

static void set_second_moment_step(const struct gd_adam_config *config, const struct gd_adam_step *step, uint64_t t,
                                   double beta2, struct gd_second_moment_step *ret_step) {
    ret_step->keep = 1.0f;
    ret_step->max_scale = 1.0f;
    switch (config->rule) {
    case GD_RULE_ADAGRAD:
        ret_step->gain = (float)(step->missing + 1);
        ret_step->keep = 0.0f;
        break;
    case GD_RULE_ADAFOM:
        set_average(ret_step, (double)(t - step->missing - 1) / (double)t);
        break;
    default:
        set_average(ret_step, gd_power(beta2, step->missing + 1));
    }
}

struct gd_adam_group_step gd_adam_step_group(const struct gd_adam_config *config, struct gd_adam_group *group,
                                             const struct gd_adam_step *step, const struct gd_adam_rates *rates) {
    uint64_t t = step->optimizer_step - group->lag;
    struct gd_adam_group before = *group;
    group->updates++;
    group->numerator = rates->learning_rate;
    group->inside = 0.0;
    group->outside = 0.0;

    struct gd_adam_group_step ret = {.relative_scale = 1.0};
    struct gd_second_moment_step *kernel = &ret.kernel;
    if (config->rule != GD_RULE_SGD) {
        double correction = bias_correction(config, rates->beta2, t);
        set_second_moment_step(config, step, t, rates->beta2, kernel);
        if (config->rule == GD_RULE_AMSGRAD && config->maximum_of == GD_MAXIMUM_CORRECTED) {
            kernel->max_scale = (float)(1.0 / sqrt(correction));
            correction = 1.0; // the maximum is of corrected moments already
        }
        // a / (sqrt(v / c + eps_root) + eps)  =  a sqrt(c) / (sqrt(v + eps_root c) + eps sqrt(c))
        group->numerator *= sqrt(correction);
        group->inside = config->eps_root * correction + config->initial_accumulator;
        group->outside = rates->eps * sqrt(correction);
        if (config->rule == GD_RULE_ADAGRAD)
            group->numerator /= 1.0 + (double)(t - 1) * config->learning_rate_decay;
        kernel->accumulator = (float)config->initial_accumulator;
        kernel->relative_floor = (float)(rates->eps * rates->eps * correction);
        ret.relative_scale = correction;
    }

    kernel->measured = step->measured;
    kernel->has_before = before.updates > 0 && step->missing == 0;
    kernel->numerator = (float)group->numerator;
    kernel->numerator_rise = (float)(group->numerator - before.numerator);
    kernel->inside = (float)group->inside;
    kernel->inside_before = (float)before.inside;
    kernel->outside = (float)group->outside;
    kernel->outside_before = (float)before.outside;
    kernel->outside_fall = (float)(before.outside - group->outside);
    ret.numerator = group->numerator;
    ret.numerator_before = before.numerator;
    return ret;
}

void gd_adam_skip_group(const struct gd_adam_config *config, struct gd_adam_group *group,
                        const struct gd_adam_step *step) {
    if (!config->absent_counts)
        group->lag += step->missing + 1;
}

void gd_adam_complete_sums(const struct gd_adam_config *config, const struct gd_adam_group_step *group_step,
                           struct gd_step_sums *sums) {
    if (config->rule != GD_RULE_SGD) {
        sums->relative_square *= group_step->relative_scale;
        return;
    }
    if (!group_step->kernel.measured || sums->active == 0)
        return;

    double active = (double)sums->active;
    double rate = group_step->numerator;
    sums->A = rate * active;
    sums->B = rate * rate * sums->squared_norm;
    sums->step_size_min = (float)rate;
    if (group_step->kernel.has_before) {
        double change = rate - group_step->numerator_before;
        sums->C = fabs(change) * active;
        sums->D = change * change * active;
    }
}

// The grid 2^j (8 + i): every n below 8, then eight points an octave.
static uint32_t grid_octave(uint64_t n) {
    return n < 16 ? 0 : 60 - (uint32_t)__builtin_clzll(n);
}

static uint64_t grid_index(uint64_t n) {
    return n < 8 ? n : 8 * grid_octave(n) + (n >> grid_octave(n));
}

static void keep_point(struct gd_adam_state *state) {
    uint64_t n = state->counted;
    uint32_t octave = grid_octave(n);
    if (n >> octave << octave != n)
        return;
    state->kept[grid_index(n) % GD_ADAM_KEPT] = (struct gd_adam_point){state->A, state->B, state->C};
}

// A, B and C at n / 2, linear between the two neighbours on the grid.
static struct gd_adam_point point_at_half(const struct gd_adam_state *state) {
    uint64_t half = state->counted / 2;
    uint32_t octave = grid_octave(half);
    uint64_t low = half >> octave << octave;
    double spacing = (double)(UINT64_C(1) << octave);
    double part = ((double)state->counted / 2.0 - (double)low) / spacing;
    const struct gd_adam_point *a = &state->kept[grid_index(low) % GD_ADAM_KEPT];
    const struct gd_adam_point *b = &state->kept[(grid_index(low) + 1) % GD_ADAM_KEPT];

    if (part == 0.0) // the upper neighbour may not have been reached yet
        return *a;
    return (struct gd_adam_point){
        a->A + part * (b->A - a->A),
        a->B + part * (b->B - a->B),
        a->C + part * (b->C - a->C),
    };
}

static void set_ratio(struct gd_values *values, enum gd_tag tag, double numerator, double denominator) {
    if (denominator > 0.0)
        gd_values_set(values, tag, numerator / denominator);
}

// log2 of (x / A at n) / (x / A at n / 2)
static void set_slope(struct gd_values *values, enum gd_tag tag, double x, double x_half, double A, double A_half) {
    if (x > 0.0 && x_half > 0.0 && A > 0.0 && A_half > 0.0 && isfinite(x) && isfinite(A))
        gd_values_set(values, tag, gd_log2(x / A) - gd_log2(x_half / A_half));
}

static void set_totals(const struct gd_adam_state *state, struct gd_values *values) {
    gd_values_set(values, GD_TAG_A, state->A);
    gd_values_set(values, GD_TAG_B, state->B);
    gd_values_set(values, GD_TAG_C, state->C);
    gd_values_set(values, GD_TAG_D, state->D);
    set_ratio(values, GD_TAG_B_OVER_A, state->B, state->A);
    set_ratio(values, GD_TAG_C_OVER_A, state->C, state->A);
    if (state->counted < 16)
        return;
    struct gd_adam_point half = point_at_half(state);
    set_slope(values, GD_TAG_SLOPE_B_OVER_A, state->B, half.B, state->A, half.A);
    set_slope(values, GD_TAG_SLOPE_C_OVER_A, state->C, half.C, state->A, half.A);
    set_ratio(values, GD_TAG_OSCILLATION, state->C - half.C, state->A - half.A);
}

static void set_step(const struct gd_step_sums *sums, struct gd_values *values) {
    gd_values_set(values, GD_TAG_STEP_SUM_A, sums->A);
    gd_values_set(values, GD_TAG_STEP_SUM_B, sums->B);
    gd_values_set(values, GD_TAG_STEP_SUM_C, sums->C);
    gd_values_set(values, GD_TAG_STEP_SUM_D, sums->D);
    set_ratio(values, GD_TAG_ACTIVE_FRACTION, (double)sums->active, (double)sums->elements);
    if (sums->active > 0) {
        gd_values_set(values, GD_TAG_STEP_SIZE_MIN, (double)sums->step_size_min);
        gd_values_set(values, GD_TAG_STEP_SIZE_MEAN, sums->A / (double)sums->active);
    }
}

// An uncorrected v starts at 0, so the ratio means nothing until v has filled.
static bool rms_has_meaning(const struct gd_adam_config *config, const struct gd_adam_state *state, double beta2_max) {
    bool uncorrected = config->rule == GD_RULE_AMSGRAD ? config->maximum_of == GD_MAXIMUM_UNCORRECTED
                                                       : rule_forgets(config->rule) && !config->bias_correction;
    return !uncorrected || state->applied >= memory_steps(beta2_max);
}

void gd_adam_end_step(const struct gd_adam_config *config, struct gd_adam_state *state, const struct gd_adam_step *step,
                      const struct gd_step_sums *sums, double beta2_max, struct gd_values *values) {
    if (!step->measured)
        return;
    state->counted++;
    state->A += sums->A;
    state->B += sums->B;
    state->C += sums->C;
    state->D += sums->D;
    keep_point(state);

    set_totals(state, values);
    set_step(sums, values);
    if (config->rule != GD_RULE_SGD && sums->elements > 0 && rms_has_meaning(config, state, beta2_max))
        gd_values_set(values, GD_TAG_RMS, sqrt(sums->relative_square / (double)sums->elements));
}
