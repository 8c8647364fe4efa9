// The last alerts of all runs, also of those that have ended, for whoever asks for them later. Fixed: an alert takes no
// memory of its own.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "alert_text.h"
#include "gradientd/protocol.h"

struct gd_recent_alert {
    uint64_t number;     // counted from 1
    uint64_t run_number; // as in Status
    double time;         // seconds since the epoch
    uid_t uid;           // of the run's trainer, like the pid
    pid_t pid;           // 0: not known
    const char *rule;    // static
    int64_t step;
    bool onset;
    char text[GD_ALERT_TEXT_BYTES];
    char group[GRADIENTD_NAME_BYTES_MAX + 1]; // "": none
    char run[GRADIENTD_RUN_BYTES_MAX + 1];
};

struct gd_alert_ring;

// Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_alert_ring_new(struct gd_alert_ring **ret_ring);

// NULL is allowed.
void gd_alert_ring_free(struct gd_alert_ring *ring);

// A place for one alert more, over the oldest: its number is set, the rest is for the caller to fill.
struct gd_recent_alert *gd_alert_ring_add(struct gd_alert_ring *ring);

// The number of the last one; 0: there was none.
uint64_t gd_alert_ring_last(const struct gd_alert_ring *ring);

// NULL: there was none of that number yet, or it is gone.
const struct gd_recent_alert *gd_alert_ring_find(const struct gd_alert_ring *ring, uint64_t number);
