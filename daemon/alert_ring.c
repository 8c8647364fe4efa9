#include "alert_ring.h"

#include <errno.h>
#include <stdlib.h>

struct gd_alert_ring {
    uint64_t last;
    struct gd_recent_alert alerts[GRADIENTD_RECENT_ALERTS]; // number n at n mod their number
};

int gd_alert_ring_new(struct gd_alert_ring **ret_ring) {
    struct gd_alert_ring *ring = calloc(1, sizeof(*ring)); // large enough that pages without an alert cost nothing
    if (!ring)
        return -ENOMEM;
    *ret_ring = ring;
    return 0;
}

void gd_alert_ring_free(struct gd_alert_ring *ring) {
    free(ring);
}

struct gd_recent_alert *gd_alert_ring_add(struct gd_alert_ring *ring) {
    uint64_t number = ++ring->last;
    struct gd_recent_alert *alert = &ring->alerts[number % GRADIENTD_RECENT_ALERTS];
    alert->number = number;
    return alert;
}

uint64_t gd_alert_ring_last(const struct gd_alert_ring *ring) {
    return ring->last;
}

const struct gd_recent_alert *gd_alert_ring_find(const struct gd_alert_ring *ring, uint64_t number) {
    const struct gd_recent_alert *alert = &ring->alerts[number % GRADIENTD_RECENT_ALERTS];
    return number > 0 && alert->number == number ? alert : NULL;
}
