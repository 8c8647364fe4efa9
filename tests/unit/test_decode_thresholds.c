// OpenRun's thresholds: what is absent has its default, just inside a limit passes, just outside fails and is named.
#include <criterion/criterion.h>
#include <math.h>

#include "client_messages.h"

TestSuite(decode_thresholds, .init = new_arena, .fini = free_arena);

#define THRESHOLD(field, value) (m.open_run.thresholds = &m.thresholds, SET_OPTIONAL(m.thresholds, field, value))

static void expect_thresholds(struct gd_alert_thresholds expected, const char *what) {
    cr_assert_eq(decode(), 0, "%s: %s", what, error.text);
    const struct gd_alert_thresholds *found = &decoded.open_run->thresholds;
    bool same = found->norm_spike_sd == expected.norm_spike_sd && found->rms == expected.rms &&
                found->cosine_mean == expected.cosine_mean && found->oscillation == expected.oscillation &&
                found->zero_group_steps == expected.zero_group_steps &&
                found->silence_intervals == expected.silence_intervals;
    cr_expect(same, "%s: %g %g %g %g %u %g", what, found->norm_spike_sd, found->rms, found->cosine_mean,
              found->oscillation, found->zero_group_steps, found->silence_intervals);
    free_decoded();
}

Test(decode_thresholds, have_defaults) {
    const struct gd_alert_thresholds defaults = {.norm_spike_sd = 6.0,
                                                 .rms = 2.3,
                                                 .cosine_mean = -0.3,
                                                 .oscillation = 0.1,
                                                 .zero_group_steps = 100,
                                                 .silence_intervals = 10.0};
    make_open_run();
    expect_thresholds(defaults, "absent");
    m.open_run.thresholds = &m.thresholds;
    expect_thresholds(defaults, "empty");
}

Test(decode_thresholds, are_taken_one_by_one) {
#define TAKEN(field, value)                                                                                            \
    do {                                                                                                               \
        struct gd_alert_thresholds expected = gd_alert_thresholds_default;                                             \
        make_open_run();                                                                                               \
        THRESHOLD(field, value);                                                                                       \
        expected.field = value;                                                                                        \
        expect_thresholds(expected, #field " " #value);                                                                \
    } while (0)
    TAKEN(norm_spike_sd, 0.0);
    TAKEN(norm_spike_sd, 12.5);
    TAKEN(norm_spike_sd, (double)INFINITY);
    TAKEN(rms, 0.0);
    TAKEN(rms, (double)INFINITY);
    TAKEN(cosine_mean, -1.0);
    TAKEN(cosine_mean, 1.0);
    TAKEN(cosine_mean, -(double)INFINITY);
    TAKEN(oscillation, 0.0);
    TAKEN(oscillation, (double)INFINITY);
    TAKEN(zero_group_steps, 1);
    TAKEN(zero_group_steps, UINT32_MAX);
    TAKEN(silence_intervals, 1.0);
    TAKEN(silence_intervals, (double)INFINITY);
    make_open_run();
    THRESHOLD(zero_group_steps, UINT64_MAX);
    struct gd_alert_thresholds off = gd_alert_thresholds_default;
    off.zero_group_steps = UINT32_MAX;
    expect_thresholds(off, "zero_group_steps of 64 bits");
}

#define OUTSIDE(field, value, says, limit)                                                                             \
    INVALID(make_open_run, "thresholds." #field, says, limit, THRESHOLD(field, value))

Test(decode_thresholds, have_limits) {
    OUTSIDE(norm_spike_sd, -0.5, "is -0.5", "at least 0");
    OUTSIDE(norm_spike_sd, (double)NAN, "nan", "at least 0");
    OUTSIDE(rms, -1.0, "is -1", "at least 0");
    OUTSIDE(rms, (double)NAN, "nan", "at least 0");
    OUTSIDE(rms, -(double)INFINITY, "-inf", "at least 0");
    OUTSIDE(cosine_mean, -1.5, "is -1.5", "at least -1");
    OUTSIDE(cosine_mean, 1.5, "is 1.5", "at most 1");
    OUTSIDE(cosine_mean, (double)INFINITY, "is inf", "at most 1");
    OUTSIDE(cosine_mean, (double)NAN, "nan", "at most 1");
    OUTSIDE(oscillation, -1.0, "is -1", "at least 0");
    OUTSIDE(oscillation, (double)NAN, "nan", "at least 0");
    OUTSIDE(zero_group_steps, 0, "is 0", "at least 1");
    OUTSIDE(silence_intervals, 0.5, "is 0.5", "at least 1");
    OUTSIDE(silence_intervals, (double)NAN, "nan", "at least 1");
}
