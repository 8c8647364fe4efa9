#include "kernel_values.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
// Where the two steps' eps differ they differ by less than a factor of two, so `outside_fall` is exact.
const struct rule_form rule_forms[] = {
    {.name = "no state"},
    {"adam, first step", true, false,
     {.gain = 0.001f, .keep = 1.0f, .scale = 1.5f, .scale_before = 1.5f, .measured = true, .numerator = 3.2e-5f, .outside = 3.2e-10f,
      .outside_before = 3.2e-10f, .relative_floor = 1e-19f}},
    {"adam, corrected, eps outside", true, false,
     {.gain = 0.001f, .keep = 1.0f, .scale = 2.5f, .scale_before = 2.75f, .scale_fall = 0.25f, .measured = true, .has_before = true, .numerator = 4e-5f, .numerator_rise = 1e-5f,
      .outside = 4e-9f, .outside_before = 3e-9f, .outside_fall = 3e-9f - 4e-9f, .relative_floor = 1.6e-17f}},
    {"adam, eps 0, falling rate", true, false,
     {.gain = 0.9f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.005f,
      .numerator_rise = -0.0001f}},
    {"rmsprop, eps inside", true, false,
     {.gain = 0.1f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.01f, .inside = 1e-8f,
      .inside_before = 1e-8f}},
    {"adam, eps inside from the second step on", true, false,
     {.gain = 0.05f, .keep = 1.0f, .scale = 3.0f, .scale_before = 4.0f, .scale_fall = 1.0f, .measured = true, .has_before = true, .numerator = 0.01f, .numerator_rise = 0.002f,
      .inside = 1e-4f, .outside = 1e-8f, .outside_before = 1e-8f, .relative_floor = 1e-16f}},
    {"amsgrad", true, true,
     {.gain = 0.01f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .max_scale = 1.0f, .measured = true, .has_before = true, .numerator = 0.001f,
      .outside = 1e-8f, .outside_before = 1e-8f, .relative_floor = 1e-16f}},
    {"amsgrad, corrected maximum, eps inside", true, true,
     {.gain = 0.01f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .max_scale = 1.7f, .measured = true, .has_before = true, .numerator = 0.001f,
      .numerator_rise = -0.0001f, .inside = 1e-6f, .inside_before = 2e-6f, .outside = 2e-8f, .outside_before = 3e-8f,
      .outside_fall = 3e-8f - 2e-8f, .relative_floor = 1e-16f}},
    {"adagrad", true, false,
     {.gain = 1.0f, .keep = 0.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.01f, .numerator_rise = -1e-5f,
      .inside = 0.1f, .inside_before = 0.1f, .outside = 1e-10f, .outside_before = 1e-10f, .accumulator = 0.1f,
      .relative_floor = 1e-20f}},
    {"adagrad from nothing", true, false,
     {.gain = 1.0f, .keep = 0.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.01f, .numerator_rise = -1e-5f,
      .outside = 1e-10f, .outside_before = 1e-10f, .relative_floor = 1e-20f}},
    {"adafom", true, false,
     {.gain = 0.02f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.001f, .outside = 1e-8f,
      .outside_before = 1e-8f, .relative_floor = 1e-16f}},
    {"adam after a long gap", true, false,
     {.gain = 1e-6f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .from_square = true, .measured = true, .numerator = 0.001f, .outside = 1e-8f,
      .outside_before = 1e-8f, .relative_floor = 1e-16f}},
    {"adam, decay 0", true, false,
     {.gain = 0.0f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .from_square = true, .measured = true, .has_before = true, .numerator = 0.001f,
      .outside = 1e-8f, .outside_before = 1e-8f, .relative_floor = 1e-16f}},
    {"adam, eps inside until the step before", true, false,
     {.gain = 0.05f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.01f, .inside_before = 1e-4f,
      .outside = 1e-8f, .outside_before = 1e-8f, .relative_floor = 1e-16f}},
    {"an accumulator that is not inside", true, false,
     {.gain = 0.1f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .measured = true, .has_before = true, .numerator = 0.01f, .outside = 1e-8f,
      .outside_before = 1e-8f, .accumulator = 0.1f, .relative_floor = 1e-16f}},
    {"adam, not measured", true, false,
     {.gain = 0.001f, .keep = 1.0f, .scale = 1.0f, .scale_before = 1.0f, .has_before = true, .numerator = 0.001f, .outside = 1e-8f, .outside_before = 1e-8f,
      .relative_floor = 1e-16f}},
};
// clang-format on
const size_t n_rule_forms = sizeof(rule_forms) / sizeof(rule_forms[0]);

const char *const distribution_names[DISTRIBUTIONS] = {
    "gaussian", "sparse", "lognormal", "non-finite", "subnormal", "huge",
};
const char *const element_type_names[] = {[GD_F32] = "f32", [GD_BF16] = "bf16", [GD_F16] = "f16"};

const struct rule_form *rule_form_named(const char *name) {
    for (size_t i = 0; i < n_rule_forms; i++) {
        if (strcmp(rule_forms[i].name, name) == 0)
            return &rule_forms[i];
    }
    abort();
}

// ---- Random values --------------------------------------------------------------------------------------------------

uint64_t random_bits(uint64_t *state) { // splitmix64
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t random_below(uint64_t *state, uint32_t bound) {
    return (uint32_t)((random_bits(state) >> 32) * bound >> 32);
}

// The sum of 12 uniform numbers has variance 1. libm's logarithm and cosine would differ between machines.
static double random_gaussian(uint64_t *state) {
    double sum = -6.0;

    for (int i = 0; i < 12; i++)
        sum += (double)(random_bits(state) >> 11) * 0x1p-53;
    return sum;
}

// e^x within 7 %: a straight line between powers of two, for the same reason.
static double about_exp(double x) {
    const double log2_e = 1.4426950408889634;
    double power = x * log2_e;
    double whole = floor(power);

    return ldexp(1.0 + (power - whole), (int)whole);
}

float draw_value(enum distribution distribution, enum gd_element_type type, uint64_t *state) {
    static const float specials[] = {NAN, INFINITY, -INFINITY};
    static const float huge[] = {FLT_MAX, -FLT_MAX, 2.0f, -2.0f, 0.0f, -0.0f};
    double z = random_gaussian(state);
    uint32_t pick = random_below(state, 10);

    switch (distribution) {
    case SPARSE:
        return pick > 0 ? copysignf(0.0f, (float)z) : (float)z;
    case LOGNORMAL:
        return (float)copysign(about_exp(3.0 * random_gaussian(state)), z);
    case NON_FINITE:
        return pick > 0 ? (float)z : specials[random_below(state, 3)];
    case SUBNORMAL:
        return (float)(z * (type == GD_F16 ? (pick < 5 ? 1e-5 : 1e-3) : (pick < 5 ? 1e-39 : 1e-20)));
    case HUGE_SIZED: // no product lies near FLT_MAX, and no sum of those below comes near it
        return huge[random_below(state, 6)];
    default:
        return (float)z;
    }
}

float draw_root(uint64_t *state) {
    uint32_t pick = random_below(state, 10);

    if (pick < 2)
        return 0.0f;
    return pick == 2 ? sqrtf(GD_SECOND_MOMENT_FLOOR) : (float)about_exp(random_gaussian(state) - 3.0);
}

float draw_maximum(float root, float max_scale, uint64_t *state) {
    return root * ((1.0f + (float)random_below(state, 100) * 0.01f) * max_scale);
}
