// Each rule on a made stream of steps: it fires at exactly the step where the fault is, not on the stream's twin
// without it, once, and clears once.
#include "diagnostics/alerts.h"

#include <criterion/criterion.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>

enum { TURNS_MAX = 512 };

static struct gd_alert_state state;
static struct gd_alert_thresholds thresholds;
static struct gd_step_sums sums;
static struct gd_values values;
static struct gd_alert_step step;

// The onsets and clearings of one rule.
static struct gd_alert turns[TURNS_MAX];
static int n_turns;

static void begin(void) {
    state = (struct gd_alert_state){0};
    thresholds = gd_alert_thresholds_default;
    n_turns = 0;
}

TestSuite(alerts, .init = begin);

// A step on which no rule has anything to say.
static void calm_step(int64_t number) {
    gd_step_sums_init(&sums);
    sums.elements = 10;
    values = (struct gd_values){0};
    step = (struct gd_alert_step){
        .step = number, .sums = &sums, .values = &values, .applied = true, .zero_group = UINT32_MAX};
}

// Judges the step under way, and keeps what comes of it for `rule`; the others must be silent.
static void judge(enum gd_alert_rule rule) {
    gd_alerts_judge(&state, &thresholds, &step);
    for (enum gd_alert_rule other = 0; other < GD_ALERT_RULES; other++)
        cr_expect(other == rule || !gd_alerts_turned(&state, other, step.step), "rule %d at step %" PRId64, (int)other,
                  step.step);
    if (!gd_alerts_turned(&state, rule, step.step))
        return;
    cr_assert_lt(n_turns, TURNS_MAX);
    turns[n_turns++] = state.rules[rule].last;
}

static void expect_turn(int i, bool onset, int64_t at) {
    cr_assert_lt(i, n_turns, "there are %d", n_turns);
    cr_expect(turns[i].onset == onset && turns[i].step == at, "%d: onset %u at step %" PRId64, i, turns[i].onset,
              turns[i].step);
}

static void expect_one_fault(int64_t onset, int64_t clearing) {
    expect_turn(0, true, onset);
    expect_turn(1, false, clearing);
    cr_expect_eq(n_turns, 2, "%d", n_turns);
    cr_expect_eq(turns[1].onset_step, onset);
}

// ---- Not finite -----------------------------------------------------------------------------------------------------

static void take_finite(int64_t number, uint64_t non_finite, bool applied) {
    calm_step(number);
    sums.non_finite = non_finite;
    sums.first_non_finite_group = non_finite > 0 ? 7 : UINT32_MAX;
    step.applied = applied;
    judge(GD_ALERT_NON_FINITE);
}

Test(alerts, elements_that_are_not_finite) {
    for (int64_t i = 1; i <= 60; i++)
        take_finite(i, i == 20 ? 3 : 0, true);
    expect_one_fault(20, 36);
    cr_expect_eq(turns[0].group, 7);
    cr_expect_eq(turns[0].value, 3.0);
    cr_expect_eq(turns[0].limit, 0.0);
    cr_expect_eq(turns[1].group, 7);
}

Test(alerts, finite_elements) {
    for (int64_t i = 1; i <= 60; i++)
        take_finite(i, 0, true);
    cr_expect_eq(n_turns, 0);
}

Test(alerts, a_fault_that_comes_again_within_sixteen_steps_is_one) {
    for (int64_t i = 1; i <= 200; i++)
        take_finite(i, i >= 20 && i <= 100 && i % 16 == 4, true); // 20, 36, ... 100
    expect_one_fault(20, 116);
}

Test(alerts, a_fault_after_the_clearing_is_another) {
    for (int64_t i = 1; i <= 60; i++)
        take_finite(i, i == 20 || i == 37, true);
    cr_expect_eq(n_turns, 4);
    expect_turn(1, false, 36);
    expect_turn(2, true, 37);
    expect_turn(3, false, 53);
}

Test(alerts, steps_that_loss_scaling_skips) {
    for (int64_t i = 1; i <= 300; i++)
        take_finite(i, i % 20 < 15, i % 20 >= 15); // fifteen in a row
    cr_expect_eq(n_turns, 0);
    for (int64_t i = 301; i <= 316; i++)
        take_finite(i, 1, false);
    expect_turn(0, true, 315); // the sixteenth from 300 on
}

// ---- The norm -------------------------------------------------------------------------------------------------------

// Deterministic, between 0 and 1.
static double noise(int64_t i) {
    return (double)((uint64_t)i * 2654435761 % 1000) / 1000.0;
}

static void take_norm(int64_t number, double norm) {
    calm_step(number);
    gd_values_set(&values, GD_TAG_NORM, norm);
    judge(GD_ALERT_NORM_SPIKE);
}

// The rule's limit at step n of norms given by `norm`, straight from its words.
static double limit_at(int64_t n, double (*norm)(int64_t)) {
    int64_t first = n > 128 ? n - 128 : 1;
    long double count = (long double)(n - first), sum = 0, squares = 0;
    for (int64_t i = first; i < n; i++)
        sum += (long double)norm(i);
    for (int64_t i = first; i < n; i++)
        squares += ((long double)norm(i) - sum / count) * ((long double)norm(i) - sum / count);
    return (double)(sum / count + 6.0L * sqrtl(squares / count));
}

static double healthy_norm(int64_t i) {
    return 100.0 / (1.0 + 0.01 * (double)i) * (1.0 + 0.3 * noise(i));
}

Test(alerts, a_norm_just_above_mean_and_six_sd) {
    static const int64_t at[] = {65, 66, 128, 129, 130, 200, 500};
    for (size_t k = 0; k < sizeof(at) / sizeof(at[0]); k++) {
        for (int twin = 0; twin < 2; twin++) {
            begin();
            for (int64_t i = 1; i < at[k]; i++)
                take_norm(i, healthy_norm(i));
            double limit = limit_at(at[k], healthy_norm);
            take_norm(at[k], limit * (twin ? 1.0 - 1e-5 : 1.0 + 1e-5));
            cr_expect_eq(n_turns, !twin, "at %" PRId64 ": %d", at[k], n_turns);
            if (twin)
                continue;
            expect_turn(0, true, at[k]);
            cr_expect(fabs(turns[0].limit / limit - 1.0) < 1e-6, "%.9g, not %.9g", turns[0].limit, limit);
            cr_expect_eq(turns[0].group, UINT32_MAX);
        }
    }
}

Test(alerts, a_norm_needs_sixty_four_before_it) {
    for (int64_t i = 1; i <= 63; i++)
        take_norm(i, 1.0 + 0.1 * noise(i));
    take_norm(64, 1000.0); // 63 were seen
    cr_expect_eq(n_turns, 0);
    begin();
    for (int64_t i = 1; i <= 64; i++)
        take_norm(i, 1.0 + 0.1 * noise(i));
    take_norm(65, 1000.0);
    expect_turn(0, true, 65);
}

Test(alerts, healthy_norms) {
    for (int64_t i = 1; i <= 5000; i++)
        take_norm(i, healthy_norm(i));
    cr_expect_eq(n_turns, 0);
}

Test(alerts, norms_of_one_value_but_for_rounding) {
    for (int64_t i = 1; i <= 1000; i++)
        take_norm(i, 1.0 + (i % 200 == 0) * 3.0 * (double)FLT_EPSILON); // as of a clipped gradient
    cr_expect_eq(n_turns, 0);
    take_norm(1001, 1.0001);
    expect_turn(0, true, 1001);
}

// After a spike of 1e12 a running sum of squares has nothing left of norms of 1.
Test(alerts, a_huge_spike_leaves_no_trace_once_it_has_left_the_window) {
    for (int64_t i = 1; i <= 400; i++)
        take_norm(i, i == 100 ? 1e12 : 1.0 + 0.1 * noise(i));
    expect_one_fault(100, 116);
    take_norm(401, 2.0);
    expect_turn(2, true, 401);
}

Test(alerts, a_new_level_is_quiet_after_four_steps) {
    for (int64_t i = 1; i <= 400; i++)
        take_norm(i, (i < 200 ? 1.0 : 100.0) + 0.1 * noise(i));
    expect_one_fault(200, 219); // 16 after the fourth
}

Test(alerts, an_infinite_norm_fires_and_does_not_join_the_window) {
    for (int64_t i = 1; i <= 200; i++)
        take_norm(i, i == 100 ? (double)INFINITY : 1.0 + 0.1 * noise(i));
    expect_one_fault(100, 116);
    take_norm(201, 2.0);
    expect_turn(2, true, 201);
}

Test(alerts, the_norm_of_a_step_that_is_not_finite_does_not_count) {
    for (int64_t i = 1; i <= 200; i++) {
        calm_step(i);
        gd_values_set(&values, GD_TAG_NORM, i % 2 ? 1.0 + 0.1 * noise(i) : 0.0);
        sums.non_finite = i % 2 ? 0 : 10;
        sums.first_non_finite_group = 0;
        gd_alerts_judge(&state, &thresholds, &step);
    }
    cr_expect_eq(state.norms_seen, 100);
    cr_expect_eq(state.rules[GD_ALERT_NORM_SPIKE].count, 0);
    calm_step(201);
    gd_values_set(&values, GD_TAG_NORM, 1.5); // within six sd, had the zeros joined the window
    gd_alerts_judge(&state, &thresholds, &step);
    cr_expect(gd_alerts_turned(&state, GD_ALERT_NORM_SPIKE, 201));
}

// ---- Values with a threshold ----------------------------------------------------------------------------------------

static void take_rms(int64_t number, double rms, bool judges) {
    calm_step(number);
    gd_values_set(&values, GD_TAG_RMS, rms);
    step.judges_rms = judges;
    judge(GD_ALERT_RMS);
}

Test(alerts, rms) {
    for (int64_t i = 1; i <= 60; i++)
        take_rms(i, i == 20 ? 2.3000001 : i % 2 ? 2.3 : 1.0, true);
    expect_one_fault(20, 36);
    cr_expect_eq(turns[0].limit, 2.3);
    cr_expect_eq(turns[0].value, 2.3000001);
}

Test(alerts, rms_where_b2_is_small) {
    for (int64_t i = 1; i <= 60; i++)
        take_rms(i, 100.0, false);
    cr_expect_eq(n_turns, 0);
}

static void take_cosine(int64_t number, double cosine) {
    calm_step(number);
    gd_values_set(&values, GD_TAG_COSINE_LAG, cosine);
    judge(GD_ALERT_COSINE);
}

Test(alerts, a_mean_cosine) {
    for (int64_t i = 1; i <= 99; i++)
        take_cosine(i, -1.0);
    cr_expect_eq(n_turns, 0);
    take_cosine(100, -1.0);
    expect_turn(0, true, 100);
    cr_expect_eq(turns[0].value, -1.0);
}

Test(alerts, a_mean_cosine_at_its_threshold) {
    for (int64_t i = 1; i <= 1000; i++)
        take_cosine(i, i % 2 ? -0.5 : -0.0999); // their mean is -0.29995
    cr_expect_eq(n_turns, 0);
    for (int64_t i = 1001; i <= 1100; i++)
        take_cosine(i, i % 2 ? -0.5 : -0.1001); // ... and falls to -0.30005, after half of them -0.3
    expect_turn(0, true, 1052);
    cr_expect_eq(n_turns, 1);
}

Test(alerts, a_mean_cosine_over_the_steps_that_have_one) {
    for (int64_t i = 1; i <= 400; i++) {
        if (i % 4 == 0)
            take_cosine(i, -0.5);
        else {
            calm_step(i);
            judge(GD_ALERT_COSINE);
        }
    }
    expect_turn(0, true, 400);
}

// A hundred thousand of them: a running sum must not drift.
Test(alerts, a_mean_cosine_stays_exact) {
    for (int64_t i = 1; i <= 100000; i++)
        take_cosine(i, 1.2 * noise(i) - 0.29);
    for (int64_t i = 100001; i <= 100100; i++)
        take_cosine(i, -0.299999);
    cr_expect_eq(n_turns, 0);
    for (int64_t i = 100101; i <= 100200; i++)
        take_cosine(i, -0.300001);
    cr_expect_eq(n_turns, 1);
}

static void take_oscillation(int64_t number, double oscillation) {
    calm_step(number);
    gd_values_set(&values, GD_TAG_OSCILLATION, oscillation);
    step.counted = (uint64_t)number;
    judge(GD_ALERT_OSCILLATION);
}

Test(alerts, oscillation_once_a_thousand_steps_are_counted) {
    for (int64_t i = 16; i <= 2000; i++)
        take_oscillation(i, i < 1500 ? 0.2 : 0.1);
    expect_one_fault(1000, 1515);
}

Test(alerts, oscillation_at_its_threshold) {
    for (int64_t i = 16; i <= 2000; i++)
        take_oscillation(i, 0.1);
    cr_expect_eq(n_turns, 0);
}

// ---- Groups of zeros ------------------------------------------------------------------------------------------------

static void take_zeros(int64_t number, uint32_t group, uint32_t steps) {
    calm_step(number);
    step.zero_group = group;
    step.zero_group_steps = steps;
    judge(GD_ALERT_ZERO_GROUP);
}

Test(alerts, a_group_of_zeros) {
    for (int64_t i = 1; i <= 300; i++)
        take_zeros(i, i >= 100 && i <= 200 ? 4 : UINT32_MAX, (uint32_t)i);
    expect_one_fault(100, 216);
    cr_expect_eq(turns[0].group, 4);
    cr_expect_eq(turns[0].value, 100.0);
    cr_expect_eq(turns[0].limit, 100.0);
}

Test(alerts, zeros_are_counted_in_a_row) {
    static const struct {
        uint64_t elements, zeros;
        uint32_t before, after;
    } rows[] = {
        {10, 10, 0, 1}, {10, 10, 98, 99}, {10, 9, 98, 0}, {10, 0, 1, 0}, {1, 1, UINT32_MAX - 1, UINT32_MAX - 1}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t steps = rows[i].before;
        gd_step_sums_init(&sums);
        sums.elements = rows[i].elements;
        sums.zeros = rows[i].zeros;
        gd_alerts_count_zeros(&sums, &steps);
        cr_expect_eq(steps, rows[i].after, "row %zu: %u", i, steps);
    }
}

// ---- All rules ------------------------------------------------------------------------------------------------------

Test(alerts, a_step_without_any_group_changes_nothing) {
    for (int64_t i = 1; i <= 10; i++)
        take_finite(i, i == 10, true);
    uint32_t quiet = state.rules[GD_ALERT_NON_FINITE].quiet;
    for (int64_t i = 11; i <= 60; i++) {
        calm_step(i);
        sums.elements = 0;
        judge(GD_ALERT_NON_FINITE);
    }
    cr_expect_eq(n_turns, 1);
    cr_expect_eq(state.rules[GD_ALERT_NON_FINITE].quiet, quiet);
}

Test(alerts, thresholds_of_the_runs_own) {
    thresholds = (struct gd_alert_thresholds){.norm_spike_sd = 2.0,
                                              .rms = 1.5,
                                              .cosine_mean = 0.5,
                                              .oscillation = 0.01,
                                              .zero_group_steps = 3,
                                              .silence_intervals = 10.0};
    for (int64_t i = 1; i <= 1000; i++) {
        calm_step(i);
        gd_values_set(&values, GD_TAG_RMS, 1.6);
        gd_values_set(&values, GD_TAG_COSINE_LAG, 0.4);
        gd_values_set(&values, GD_TAG_OSCILLATION, 0.02);
        gd_values_set(&values, GD_TAG_NORM, i == 65 ? 1.31 : i % 2 ? 1.0 : 1.2);
        step.judges_rms = true;
        step.counted = (uint64_t)i;
        gd_alerts_judge(&state, &thresholds, &step);
        cr_expect_eq(gd_alerts_turned(&state, GD_ALERT_RMS, i), i == 1, "step %" PRId64, i);
        cr_expect_eq(gd_alerts_turned(&state, GD_ALERT_COSINE, i), i == 100, "step %" PRId64, i);
        cr_expect_eq(gd_alerts_turned(&state, GD_ALERT_OSCILLATION, i), i == 1000, "step %" PRId64, i);
        cr_expect_eq(gd_alerts_turned(&state, GD_ALERT_NORM_SPIKE, i), i == 65 || i == 81, "step %" PRId64, i);
    }
}

Test(alerts, rules_that_are_switched_off) {
    thresholds = (struct gd_alert_thresholds){.norm_spike_sd = (double)INFINITY,
                                              .rms = (double)INFINITY,
                                              .cosine_mean = -(double)INFINITY,
                                              .oscillation = (double)INFINITY,
                                              .zero_group_steps = UINT32_MAX,
                                              .silence_intervals = (double)INFINITY};
    for (int64_t i = 1; i <= 2000; i++) {
        calm_step(i);
        gd_values_set(&values, GD_TAG_RMS, 1e300);
        gd_values_set(&values, GD_TAG_COSINE_LAG, -1.0);
        gd_values_set(&values, GD_TAG_OSCILLATION, 1e300);
        gd_values_set(&values, GD_TAG_NORM, i % 100 ? 1.0 : i % 200 ? 1e9 : (double)INFINITY);
        step.judges_rms = true;
        step.counted = (uint64_t)i;
        judge(GD_ALERT_NON_FINITE);
    }
    cr_expect_eq(n_turns, 0);
}

Test(alerts, sixty_four_of_a_rule_are_written) {
    int written = 0;
    for (int64_t i = 1; i <= 17 * 100; i++) {
        take_finite(i, i % 17 == 0, true);
        written += gd_alerts_turned(&state, GD_ALERT_NON_FINITE, i) && gd_alerts_writes(&state, GD_ALERT_NON_FINITE);
    }
    cr_expect_eq(written, 64);
    cr_expect_gt(n_turns, 64);
    cr_expect_eq(state.rules[GD_ALERT_NON_FINITE].count, (uint32_t)n_turns);
}

Test(alerts, a_state_from_outside) {
    cr_expect(gd_alerts_are_valid(&state, 1));
    for (int64_t i = 1; i <= 150; i++) {
        calm_step(i);
        gd_values_set(&values, GD_TAG_NORM, noise(i));
        gd_values_set(&values, GD_TAG_COSINE_LAG, noise(i) - 0.5);
        sums.non_finite = i == 30;
        sums.first_non_finite_group = i == 30 ? 7 : UINT32_MAX;
        gd_alerts_judge(&state, &thresholds, &step);
        cr_expect(gd_alerts_are_valid(&state, 8), "step %" PRId64, i);
    }
    cr_expect_not(gd_alerts_are_valid(&state, 7));
}
