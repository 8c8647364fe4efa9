#include "diagnostics/schedule.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

Test(schedule, the_first_snapshots_are_shown_then_three_to_a_doubling) {
    static const uint64_t shown[] = {1,  2,  3,  4,  5,  6,  8,   10,  12,  16,  20, 24,
                                     32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320};
    size_t next = 0;

    cr_expect_not(gd_schedule_shows(0));
    for (uint64_t n = 1; n <= shown[ARRAY_SIZE(shown) - 1]; n++) {
        bool expected = n == shown[next];
        cr_expect_eq(gd_schedule_shows(n), expected, "snapshot %" PRIu64, n);
        next += expected;
    }
}

Test(schedule, as_many_are_shown_as_the_header_says) {
    static const struct {
        uint64_t snapshots;
        unsigned shown;
    } cases[] = {{1000, 27}, {1000000, 57}, {1000000000, 87}};
    uint64_t snapshots = 0;
    unsigned shown = 0;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        while (snapshots < cases[i].snapshots) {
            snapshots++;
            shown += gd_schedule_shows(snapshots);
        }
        cr_expect_eq(shown, cases[i].shown, "%" PRIu64 " snapshots: %u", cases[i].snapshots, shown);
    }
}

Test(schedule, no_count_is_out_of_range) {
    cr_expect(gd_schedule_shows(UINT64_C(1) << 63));
    cr_expect(gd_schedule_shows(UINT64_C(3) << 62));
    cr_expect_not(gd_schedule_shows(UINT64_MAX));
    cr_expect_not(gd_schedule_shows((UINT64_C(1) << 63) + 1));
}

Test(schedule, images_are_a_part_of_it) {
    for (uint64_t n = 0; n < 100000; n++) {
        cr_expect_eq(gd_schedule_shows_image(n), n > 0 && __builtin_popcountll(n) == 1, "snapshot %" PRIu64, n);
        cr_expect(!gd_schedule_shows_image(n) || gd_schedule_shows(n), "snapshot %" PRIu64, n);
    }
}
