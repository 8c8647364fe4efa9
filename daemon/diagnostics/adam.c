#include "diagnostics/adam.h"

#include <assert.h>
#include <math.h>

#include "arithmetic.h"

// Steps after which a second moment has forgotten 95 % of what was before: 3 / (1 - b2), e^-3 = 0.05. The factor keeps
// the rounding of 1 - b2 from adding a step (3 / (1 - 0.9) is 30.000000000000007).
static uint64_t memory_steps(double beta2) {
    return (uint64_t)ceil(3.0 / (1.0 - beta2) * (1.0 - 1e-12));
}

bool gd_adam_beta2_is_valid(double beta2) {
    return beta2 >= 0.0 && beta2 < 1.0;
}

bool gd_adam_eps_is_valid(double eps) {
    return eps >= 0.0 && isfinite(eps);
}

bool gd_adam_corrects_by_default(enum gd_rule rule) {
    return rule == GD_RULE_ADAM || rule == GD_RULE_ADAMW;
}

struct gd_adam_config gd_adam_shadow(const struct gd_adam_config *own, enum gd_rule rule) {
    struct gd_adam_config shadow = {
        .rule = rule,
        .bias_correction = gd_adam_corrects_by_default(rule),
        .eps_root = own->eps_root,
        .absent_counts = own->absent_counts,
    };
    bool own_may_correct = gd_adam_corrects_by_default(own->rule) || own->rule == GD_RULE_RMSPROP;
    if (rule == GD_RULE_AMSGRAD)
        shadow.maximum_of =
            own_may_correct && !own->bias_correction ? GD_MAXIMUM_UNCORRECTED : GD_MAXIMUM_RAW_THEN_CORRECTED;
    return shadow;
}

bool gd_adam_has_effective_step(const struct gd_adam_config *config) {
    return config->rule != GD_RULE_OTHER;
}

bool gd_adam_has_second_moment(const struct gd_adam_config *config) {
    return config->rule != GD_RULE_SGD && gd_adam_has_effective_step(config);
}

uint32_t gd_adam_state_arrays(const struct gd_adam_config *config) {
    if (!gd_adam_has_second_moment(config))
        return 0;
    return config->rule == GD_RULE_AMSGRAD ? 2 : 1;
}

// Whether v forgets: otherwise what came before an attachment in mid-training never becomes unimportant.
static bool rule_forgets(enum gd_rule rule) {
    return rule == GD_RULE_ADAM || rule == GD_RULE_ADAMW || rule == GD_RULE_RMSPROP;
}

static uint64_t silent_steps(const struct gd_adam_config *config, bool exact, double beta2_max) {
    if (!gd_adam_has_effective_step(config))
        return UINT64_MAX;
    if (exact || config->rule == GD_RULE_SGD)
        return 0;
    return rule_forgets(config->rule) ? memory_steps(beta2_max) : UINT64_MAX;
}

struct gd_adam_step gd_adam_begin_step(const struct gd_adam_config *config, struct gd_adam_state *state,
                                       uint64_t optimizer_step, bool exact, double beta2_max) {
    struct gd_adam_step step = {.optimizer_step = optimizer_step};

    if (state->first_optimizer_step == 0) {
        state->first_optimizer_step = optimizer_step;
        state->silent = silent_steps(config, exact, beta2_max);
    } else {
        assert(optimizer_step > state->optimizer_step);
        step.missing = optimizer_step - state->optimizer_step - 1;
        state->missing += step.missing;
    }
    step.missing_total = state->missing;
    step.measured = state->applied >= state->silent;
    state->applied++;
    state->optimizer_step = optimizer_step;
    return step;
}

static bool is_corrected(const struct gd_adam_config *config) {
    return config->rule == GD_RULE_AMSGRAD ? config->maximum_of != GD_MAXIMUM_UNCORRECTED : config->bias_correction;
}

void gd_adam_start(struct gd_adam_state *state, uint64_t optimizer_step) {
    state->first_optimizer_step = optimizer_step + 1;
    state->optimizer_step = optimizer_step;
}

static double bias_correction(double beta2, uint64_t t) {
    return 1.0 / sqrt(1.0 - gd_power(beta2, t));
}

double gd_adam_maximum_scale(const struct gd_adam_config *config, double beta2, uint64_t t) {
    bool corrected = config->rule == GD_RULE_AMSGRAD && config->maximum_of == GD_MAXIMUM_CORRECTED;
    return corrected ? bias_correction(beta2, t) : 1.0;
}

// v <- retained v + (1 - retained) g^2, in the form that does not cancel.
static void set_average(struct gd_second_moment_step *step, double retained) {
    step->from_square = retained < 0.5;
    step->gain = (float)(step->from_square ? retained : 1.0 - retained);
}

static void set_second_moment_step(const struct gd_adam_config *config, const struct gd_adam_step *step, uint64_t t,
                                   double beta2, struct gd_second_moment_step *ret_step) {
    ret_step->keep = 1.0f;
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

// What the group's effective step is made of from now on.
static void set_effective_step(const struct gd_adam_config *config, struct gd_adam_group *group,
                               const struct gd_adam_rates *rates, uint64_t t) {
    bool maximum_is_corrected = config->rule == GD_RULE_AMSGRAD && config->maximum_of == GD_MAXIMUM_CORRECTED;

    group->numerator = rates->learning_rate / (1.0 + (double)(t - 1) * config->learning_rate_decay);
    group->scale = is_corrected(config) && !maximum_is_corrected ? bias_correction(rates->beta2, t) : 1.0;
    group->inside = config->eps_root + config->initial_accumulator;
    group->outside = rates->eps;
}

void gd_adam_start_group(const struct gd_adam_config *config, struct gd_adam_group *group, uint64_t optimizer_step,
                         const struct gd_adam_rates *rates) {
    group->updates = optimizer_step - group->lag;
    if (group->updates > 0)
        set_effective_step(config, group, rates, group->updates);
}

// An uncorrected v starts at 0: g^2 / v means nothing until v has filled.
static bool has_filled(const struct gd_adam_config *config, const struct gd_adam_group *group, double beta2) {
    bool starts_low = config->rule == GD_RULE_AMSGRAD || rule_forgets(config->rule);
    return !starts_low || is_corrected(config) || group->updates >= memory_steps(beta2);
}

struct gd_adam_group_step gd_adam_step_group(const struct gd_adam_config *config, struct gd_adam_group *group,
                                             const struct gd_adam_step *step, const struct gd_adam_rates *rates) {
    uint64_t t = step->optimizer_step - group->lag;
    struct gd_adam_group before = *group;
    struct gd_adam_group_step ret = {.relative = false};
    struct gd_second_moment_step *kernel = &ret.kernel;

    group->updates++;
    group->missing = step->missing_total;
    kernel->measured = step->measured;
    kernel->has_before = before.updates > 0 && before.missing == step->missing_total;
    ret.relative = gd_adam_has_second_moment(config) && has_filled(config, group, rates->beta2);

    set_second_moment_step(config, step, t, rates->beta2, kernel);
    kernel->max_scale = (float)gd_adam_maximum_scale(config, rates->beta2, t);
    set_effective_step(config, group, rates, t);
    if (before.updates == 0)
        before = *group; // nothing to compare with: keeps the kernel's arithmetic finite
    kernel->numerator = (float)group->numerator;
    kernel->numerator_rise = (float)(group->numerator - before.numerator);
    kernel->scale = (float)group->scale;
    kernel->scale_before = (float)before.scale;
    kernel->scale_fall = (float)(before.scale - group->scale);
    kernel->inside = (float)group->inside;
    kernel->inside_before = (float)before.inside;
    kernel->outside = (float)group->outside;
    kernel->outside_before = (float)before.outside;
    kernel->outside_fall = (float)(before.outside - group->outside);
    kernel->accumulator = (float)config->initial_accumulator;
    kernel->relative_floor = (float)(rates->eps * rates->eps);
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
    if (group_step->relative)
        sums->relative_elements = sums->elements;
    else
        sums->relative_square = 0.0;
    if (config->rule != GD_RULE_SGD)
        return;
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

void gd_adam_add_finite(double *total, double increment) {
    if (isfinite(increment))
        *total += increment;
}

void gd_adam_end_step(struct gd_adam_state *state, const struct gd_adam_step *step, const struct gd_step_sums *sums,
                      struct gd_values *values) {
    if (!step->measured)
        return;
    state->counted++;
    gd_adam_add_finite(&state->A, sums->A);
    gd_adam_add_finite(&state->B, sums->B);
    gd_adam_add_finite(&state->C, sums->C);
    gd_adam_add_finite(&state->D, sums->D);
    keep_point(state);

    set_totals(state, values);
    set_step(sums, values);
    if (sums->relative_elements > 0)
        gd_values_set(values, GD_TAG_RMS, sqrt(sums->relative_square / (double)sums->relative_elements));
}
