// What the daemon tells systemd while it runs: READY, STATUS with its runs and steps, WATCHDOG, STOPPING. Where nobody
// listens to it, nothing, and no timer runs. On the loop's thread.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "counters.h"
#include "watchdog.h"

struct gd_supervision {
    uv_timer_t status_timer;   // while there are runs: their steps
    uv_timer_t watchdog_timer; // while systemd's watchdog waits
    const struct gd_counters *counters;
    const struct gd_thread_counters *thread_counters;
    bool stopping;
    uint32_t runs;
    bool told; // the last text, of ...
    uint64_t steps_told;
    struct gd_watchdog watchdog;
};

// The counters outlive it. The struct stays where it is until the loop has ended.
void gd_supervision_init(struct gd_supervision *supervision, uv_loop_t *loop, const struct gd_counters *counters,
                         const struct gd_thread_counters *thread_counters);

// The daemon listens: READY, and from now on WATCHDOG in half of systemd's interval, as long as gd_watchdog_is_well().
void gd_supervision_begin(struct gd_supervision *supervision);

// There are so many runs: told at once where that is new. From now on their steps are told once a second at most.
void gd_supervision_tell_runs(struct gd_supervision *supervision, uint32_t runs);

// The daemon stops.
void gd_supervision_stop(struct gd_supervision *supervision);

void gd_supervision_close(struct gd_supervision *supervision);
