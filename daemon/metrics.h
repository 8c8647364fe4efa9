// The metrics file's life beside the loop: written when the daemon begins, in an interval, and when it ends.
#pragma once

#include <uv.h>

#include "counters.h"
#include "metrics_file.h"

struct gd_metrics {
    uv_timer_t timer;
    struct gd_metrics_file *file; // owned; NULL: there is none, and nothing to do
    struct gd_counters *counters;
    void (*measure)(void *context, struct gd_daemon_status *ret_status);
    void *context;
};

// Takes over `file`. The struct stays where it is until the loop has ended.
void gd_metrics_init(struct gd_metrics *metrics, uv_loop_t *loop, struct gd_metrics_file *file,
                     struct gd_counters *counters, void (*measure)(void *context, struct gd_daemon_status *ret_status),
                     void *context);

// Writes now, and from now on in this interval.
void gd_metrics_start(struct gd_metrics *metrics, uint32_t interval_s);

void gd_metrics_close(struct gd_metrics *metrics);

// After the loop's end: writes for the last time, for as long as a second.
void gd_metrics_finish(struct gd_metrics *metrics);
