// The last alerts of all runs: numbered without gaps, the oldest of them overwritten.
#include "alert_ring.h"

#include <criterion/criterion.h>

static struct gd_alert_ring *ring;

static void set_up(void) {
    cr_assert_eq(gd_alert_ring_new(&ring), 0);
}

static void tear_down(void) {
    gd_alert_ring_free(ring);
}

TestSuite(alert_ring, .init = set_up, .fini = tear_down);

static void add(uint64_t alerts) {
    for (uint64_t i = 0; i < alerts; i++) {
        struct gd_recent_alert *alert = gd_alert_ring_add(ring);
        alert->step = (int64_t)alert->number * 10;
    }
}

Test(alert_ring, is_empty_at_first) {
    cr_expect_eq(gd_alert_ring_last(ring), 0);
    cr_expect_null(gd_alert_ring_find(ring, 0));
    cr_expect_null(gd_alert_ring_find(ring, 1));
    cr_expect_null(gd_alert_ring_find(ring, GRADIENTD_RECENT_ALERTS));
}

Test(alert_ring, has_the_last_ones_under_their_numbers) {
    static const uint64_t counts[] = {1, 2, GRADIENTD_RECENT_ALERTS - 1, 1, 1, 3 * GRADIENTD_RECENT_ALERTS + 7};
    uint64_t last = 0;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        add(counts[i]);
        last += counts[i];
        cr_assert_eq(gd_alert_ring_last(ring), last);
        for (uint64_t number = 0; number <= last + GRADIENTD_RECENT_ALERTS; number++) {
            const struct gd_recent_alert *alert = gd_alert_ring_find(ring, number);
            bool kept = number >= 1 && number <= last && number + GRADIENTD_RECENT_ALERTS > last;
            cr_assert_eq(alert != NULL, kept, "number %llu of %llu", (unsigned long long)number,
                         (unsigned long long)last);
            if (alert)
                cr_assert_eq(alert->step, (int64_t)number * 10);
        }
    }
}
