#include "diagnostics/health.h"

#include <criterion/criterion.h>

static struct gd_step_sums sums_of(double squared_norm, float max_abs, uint64_t non_finite, uint64_t zeros) {
    struct gd_step_sums sums;
    gd_step_sums_init(&sums);
    sums.elements = 10;
    sums.squared_norm = squared_norm;
    sums.max_abs = max_abs;
    sums.non_finite = non_finite;
    sums.zeros = zeros;
    return sums;
}

static void expect_value(const struct gd_values *values, enum gd_tag tag, double expected, size_t step) {
    struct gd_tag_text text;
    gd_tag_describe(tag, &text);
    cr_expect(gd_values_has(values, tag), "step %zu: %s", step, text.name);
    cr_expect_eq(values->value[tag], expected, "step %zu: %s is %g, not %g", step, text.name, values->value[tag],
                 expected);
}

Test(health, what_spikes_is_kept_until_the_window_ends) {
    const struct {
        bool new_window;
        double squared_norm;
        float max_abs;
        uint64_t non_finite, zeros;
        double norm, norm_max, max_abs_shown, non_finite_shown, zero_fraction;
    } steps[] = {
        {true, 4.0, 1.5f, 0, 5, 2.0, 2.0, 1.5, 0.0, 0.5},   {false, 9.0, 1.0f, 3, 0, 3.0, 3.0, 1.5, 3.0, 0.0},
        {false, 1.0, 2.5f, 1, 10, 1.0, 3.0, 2.5, 3.0, 1.0}, {false, 0.0, 0.0f, 0, 10, 0.0, 3.0, 2.5, 3.0, 1.0},
        {true, 1.0, 0.5f, 0, 2, 1.0, 1.0, 0.5, 0.0, 0.2},   {true, 0.0, 0.0f, 0, 10, 0.0, 0.0, 0.0, 0.0, 1.0},
    };
    struct gd_health_state state = {0};

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct gd_step_sums sums =
            sums_of(steps[i].squared_norm, steps[i].max_abs, steps[i].non_finite, steps[i].zeros);
        struct gd_values values = {0};
        if (steps[i].new_window)
            state = (struct gd_health_state){0};
        gd_health_values(&state, &sums, &values);
        expect_value(&values, GD_TAG_NORM, steps[i].norm, i);
        expect_value(&values, GD_TAG_NORM_MAX, steps[i].norm_max, i);
        expect_value(&values, GD_TAG_MAX_ABS, steps[i].max_abs_shown, i);
        expect_value(&values, GD_TAG_NON_FINITE, steps[i].non_finite_shown, i);
        expect_value(&values, GD_TAG_ZERO_FRACTION, steps[i].zero_fraction, i);
    }
}

Test(health, no_elements_have_no_values) {
    struct gd_health_state state = {0};
    struct gd_values values = {0};
    struct gd_step_sums sums;

    gd_step_sums_init(&sums);
    gd_health_values(&state, &sums, &values);
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++)
        cr_expect_not(gd_values_has(&values, (enum gd_tag)tag), "tag %u", tag);
}

Test(health, other_tags_are_left_alone) {
    const enum gd_tag own[] = {GD_TAG_NORM, GD_TAG_NORM_MAX, GD_TAG_MAX_ABS, GD_TAG_NON_FINITE, GD_TAG_ZERO_FRACTION};
    struct gd_health_state state = {0};
    struct gd_values values = {0};
    struct gd_step_sums sums = sums_of(1.0, 1.0f, 0, 0);

    gd_health_values(&state, &sums, &values);
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        bool is_own = false;
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
            is_own |= own[i] == tag;
        cr_expect_eq(gd_values_has(&values, (enum gd_tag)tag), is_own, "tag %u", tag);
    }
}
