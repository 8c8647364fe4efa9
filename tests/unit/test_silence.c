// A run is silent after ten of its usual intervals, and never on a hiccup.
#include "diagnostics/silence.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

static struct gd_silence silence;

static void begin(void) {
    silence = (struct gd_silence){0};
}

TestSuite(silence, .init = begin);

// `n` snapshots, `interval_ms` apart. Returns when the last one came.
static uint64_t arrive(uint64_t from_ms, int n, uint64_t interval_ms) {
    for (int i = 0; i < n; i++, from_ms += interval_ms)
        cr_expect_not(gd_silence_arrive(&silence, from_ms, i));
    return from_ms - interval_ms;
}

Test(silence, has_no_deadline_before_sixteen_intervals) {
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), UINT64_MAX);
    arrive(5000, 16, 300);
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), UINT64_MAX);
    cr_expect_not(gd_silence_arrive(&silence, 9800, 16));
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), 9800 + 3000);
}

Test(silence, is_ten_medians_or_a_second) {
    static const struct {
        uint64_t interval_ms;
        double intervals;
        uint64_t wait_ms;
    } rows[] = {{0, 10.0, 1000},   {1, 10.0, 1000},           {99, 10.0, 1000},
                {101, 10.0, 1010}, {200, 2.5, 1000},          {60000, 1.0, 60000},
                {500, 10.5, 5250}, {3600000, 10.0, 36000000}, {1000, 1e6, 1000000000}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        begin();
        uint64_t last_ms = arrive(1000, 40, rows[i].interval_ms);
        uint64_t deadline_ms = gd_silence_deadline_ms(&silence, rows[i].intervals);
        cr_expect_eq(deadline_ms, last_ms + rows[i].wait_ms, "row %zu: %" PRIu64, i, deadline_ms - last_ms);
    }
}

Test(silence, takes_the_median_not_the_mean) {
    uint64_t last_ms = arrive(0, 19, 200);
    for (int i = 0; i < 14; i++)
        gd_silence_arrive(&silence, last_ms += 90000, i);
    cr_expect_eq(gd_silence_median_ms(&silence), 200);
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), last_ms + 2000);
}

Test(silence, forgets_intervals_of_long_ago) {
    arrive(0, 100, 5000);
    uint64_t last_ms = arrive(500000, 33, 200);
    cr_expect_eq(gd_silence_median_ms(&silence), 200);
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), last_ms + 2000);
}

Test(silence, is_over_with_the_next_snapshot_and_does_not_count_as_an_interval) {
    uint64_t last_ms = arrive(0, 20, 200);
    silence.silent = true;
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), UINT64_MAX); // told once
    cr_expect(gd_silence_arrive(&silence, last_ms + 100000, 20));
    cr_expect_eq(silence.seen, 19);
    cr_expect_eq(gd_silence_deadline_ms(&silence, 10.0), last_ms + 100000 + 2000);
    cr_expect_not(gd_silence_arrive(&silence, last_ms + 100200, 21));
    cr_expect_eq(silence.seen, 20);
}

Test(silence, is_switched_off_by_an_infinite_threshold) {
    arrive(0, 40, 0);
    cr_expect_eq(gd_silence_deadline_ms(&silence, (double)INFINITY), UINT64_MAX);
    begin();
    arrive(0, 40, 200);
    cr_expect_eq(gd_silence_deadline_ms(&silence, (double)INFINITY), UINT64_MAX);
    cr_expect_eq(gd_silence_deadline_ms(&silence, 1e14), UINT64_MAX);
}
