// When the daemon is well enough to tell systemd's watchdog so: by table.
#include "watchdog.h"

#include <criterion/criterion.h>

struct look {
    uint64_t progress;
    uint32_t working;
    bool well;
};

static void expect_looks(const struct look *looks, size_t n_looks) {
    struct gd_watchdog watchdog = {0};
    for (size_t i = 0; i < n_looks; i++)
        cr_expect_eq(gd_watchdog_is_well(&watchdog, looks[i].progress, looks[i].working), looks[i].well, "look %zu", i);
}

#define EXPECT_LOOKS(...)                                                                                              \
    expect_looks((const struct look[]){__VA_ARGS__}, sizeof((const struct look[]){__VA_ARGS__}) / sizeof(struct look))

Test(watchdog, of_an_idle_daemon_is_fed) {
    EXPECT_LOOKS({0, 0, true}, {0, 0, true}, {0, 0, true});
    EXPECT_LOOKS({17, 0, true}, {17, 0, true});
}

Test(watchdog, of_a_part_that_gets_on_is_fed_however_long_it_takes) {
    EXPECT_LOOKS({1, 1, true}, {2, 1, true}, {3, 1, true}, {40, 1, true}, {41, 1, true}, {43, 0, true});
}

Test(watchdog, of_a_part_that_has_just_begun_is_fed) {
    EXPECT_LOOKS({8, 0, true}, {9, 1, true}); // with nothing done yet
}

Test(watchdog, of_a_part_that_hangs_is_not_fed_until_it_gets_on) {
    EXPECT_LOOKS({1, 1, true}, {1, 1, false}, {1, 1, false}, {2, 1, true}, {2, 1, false}, {3, 0, true}, {3, 0, true});
}

Test(watchdog, one_of_several_that_gets_on_is_enough) {
    EXPECT_LOOKS({4, 4, true}, {5, 4, true}, {6, 4, true}, {6, 4, false});
}

Test(watchdog, parts_that_end_and_begin_between_two_looks_are_progress) {
    EXPECT_LOOKS({1, 1, true}, {3, 1, true}, {5, 1, true});
}
