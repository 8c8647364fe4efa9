// How often something has happened lately, for whoever watches it: by table.
#include "pace.h"

#include <criterion/criterion.h>
#include <math.h>

// `events` times, `interval_us` apart, from a second on; then nothing for `quiet_ms`.
static double pace_of(uint64_t events, uint64_t interval_us, uint64_t quiet_ms) {
    struct gd_pace pace = {0};
    uint64_t at_us = 1000000;
    for (uint64_t i = 0; i < events; i++) {
        gd_pace_count(&pace, at_us / 1000);
        at_us += interval_us;
    }
    return gd_pace_per_second(&pace, pace.last_ms + quiet_ms);
}

Test(pace, is_not_known_before_there_are_two_moments) {
    struct gd_pace none = {0};
    cr_expect(isnan(gd_pace_per_second(&none, 5000)));
    cr_expect(isnan(pace_of(1, 1000, 0)));
    cr_expect(isnan(pace_of(1, 1000, 3600000)));
    cr_expect(isnan(pace_of(5, 10, 0)), "all within a millisecond");
}

Test(pace, reads_from_once_in_minutes_to_a_hundred_thousand_a_second) {
    static const struct {
        uint64_t events, interval_us, quiet_ms;
        double expected; // a second
    } cases[] = {
        {2, 100000000, 0, 0.01},     // the second has just come
        {2, 100000000, 99000, 0.01}, // the third is about to
        {100, 100000000, 50000, 0.01}, {100, 1000000, 0, 1.0},    {100, 1000000, 999, 1.0},   {3, 500000, 0, 2.0},
        {1000, 50000, 49, 20.0},       {100000, 1000, 0, 1000.0}, {1000000, 10, 0, 100000.0}, // over ten seconds
        {20000, 10, 0, 100000.0}, // in its first fifth of a second
        {3000000, 10, 0, 100000.0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double pace = pace_of(cases[i].events, cases[i].interval_us, cases[i].quiet_ms);
        cr_expect(fabs(pace - cases[i].expected) <= 0.011 * cases[i].expected, "case %zu: %g, not %g", i, pace,
                  cases[i].expected);
    }
}

Test(pace, goes_down_when_nothing_happens) {
    static const struct {
        uint64_t events, interval_us, quiet_ms;
        double least, most;
    } cases[] = {
        {100000, 1000, 5000, 450.0, 550.0},                                            // half of the window
        {100000, 1000, 9000, 90.0, 210.0},     {100000, 1000, 10000, 0.0, 0.1},        // all of it
        {3000000, 10, 100000, 0.0, 0.01},      {100, 100000000, 200000, 0.004, 0.006}, // one of them is late
        {100, 100000000, 1000000, 0.0, 0.001}, {100, 1000000, 3600000, 0.0, 1.0 / 3600},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double pace = pace_of(cases[i].events, cases[i].interval_us, cases[i].quiet_ms);
        cr_expect(pace >= cases[i].least && pace <= cases[i].most * 1.0001, "case %zu: %g", i, pace);
    }
}

Test(pace, follows_a_change_within_the_window) {
    struct gd_pace pace = {0};
    uint64_t now_ms = 0;
    for (int i = 0; i < 30000; i++)
        gd_pace_count(&pace, now_ms++);
    for (int i = 0; i < 150; i++)
        gd_pace_count(&pace, now_ms += 100);
    cr_expect_float_eq(gd_pace_per_second(&pace, now_ms), 10.0, 0.2);
    for (int i = 0; i < 12000; i++)
        gd_pace_count(&pace, now_ms++);
    cr_expect_float_eq(gd_pace_per_second(&pace, now_ms), 1000.0, 10.0);
}

Test(pace, of_bursts_is_their_mean) {
    struct gd_pace pace = {0};
    uint64_t now_ms = 0;
    for (int burst = 0; burst < 200; burst++) {
        now_ms += 250;
        for (int i = 0; i < 25; i++)
            gd_pace_count(&pace, now_ms);
    }
    cr_expect_float_eq(gd_pace_per_second(&pace, now_ms + 200), 100.0, 5.0);
}
