#include "diagnostics/thinning.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

Test(thinning, the_stride_keeps_four_significant_digits) {
    const struct {
        int64_t step, stride;
    } cases[] = {
        {0, 1},
        {1, 1},
        {9999, 1},
        {10000, 10},
        {10010, 10},
        {99990, 10},
        {99999, 10},
        {100000, 100},
        {999999, 100},
        {1000000, 1000},
        {9999999, 1000},
        {10000000, 10000},
        {INT64_C(999999999999), INT64_C(100000000)},
        {INT64_C(1000000000000), INT64_C(1000000000)},
        {INT64_MAX, INT64_C(1000000000000000)},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        cr_expect_eq(gd_thinning_stride(cases[i].step), cases[i].stride, "step %" PRId64, cases[i].step);
}

Test(thinning, the_first_snapshot_of_a_window_is_written) {
    const struct {
        int64_t before, step;
        bool written;
    } cases[] = {
        {-1, 0, true},
        {-1, 7, true},
        {0, 1, true},
        {9998, 9999, true},
        {9999, 10000, true},
        {10000, 10001, false},
        {10000, 10009, false},
        {10009, 10010, true},
        {10000, 10010, true},
        {-1, 10005, true},
        {9999, 10005, true},
        {10005, 10009, false},
        {10005, 10011, true},
        {99980, 99989, false},
        {99989, 99990, true},
        {99990, 99999, false},
        {99999, 100000, true},
        {99999, 100050, true},
        {100000, 100099, false},
        {100050, 100099, false},
        {100099, 100100, true},
        {999900, 999999, false},
        {999999, 1000000, true},
        {1000000, 1000999, false},
        {1000999, 1001000, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        cr_expect_eq(gd_thinning_writes(cases[i].before, cases[i].step), cases[i].written, "%" PRId64 " after %" PRId64,
                     cases[i].step, cases[i].before);
}

Test(thinning, a_decade_takes_9000_points) {
    const struct {
        int64_t last;
        int written; // of the steps 1..last
    } cases[] = {
        {9999, 9999},
        {10000, 9999 + 1},
        {10010, 9999 + 2},
        {99999, 9999 + 9000},
        {100000, 9999 + 9000 + 1},
        {999999, 9999 + 2 * 9000},
        {1000000, 9999 + 2 * 9000 + 1},
    };
    int written = 0;
    size_t next = 0;

    for (int64_t step = 1; step <= 1000000; step++) {
        written += gd_thinning_writes(step - 1, step);
        if (step == cases[next].last) {
            cr_expect_eq(written, cases[next].written, "steps 1..%" PRId64 ": %d", step, written);
            next++;
        }
    }
    cr_expect_eq(next, ARRAY_SIZE(cases));
}

// The window of a step from the text alone: its first four digits, and how many follow.
static int64_t window(int64_t step) {
    int64_t digits = step, dropped = 0;
    for (; digits >= 10000; digits /= 10)
        dropped++;
    return dropped * 10000 + digits;
}

Test(thinning, sparse_steps_write_each_window_once) {
    for (int64_t spacing = 2; spacing <= 5000; spacing = spacing * 3 / 2 + 1) {
        int64_t before = -1;
        int64_t last_window = -1;
        for (int64_t step = spacing % 7; step < 3000000; step += spacing) {
            bool first = window(step) != last_window; // windows never come back, steps only rise
            cr_assert_eq(gd_thinning_writes(before, step), first, "%" PRId64 " after %" PRId64, step, before);
            last_window = window(step);
            before = step;
        }
    }
}
