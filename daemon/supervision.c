#include "supervision.h"

#include <stdio.h>

#include "service_text.h"
#include "systemd.h"

enum {
    STATUS_MS = 1000, // between two counts of steps: systemd takes a message each time
    US_PER_MS = 1000,
};

static void tell_status(struct gd_supervision *supervision) {
    char text[GD_SERVICE_TEXT_BYTES], line[GD_SERVICE_TEXT_BYTES + 8];
    supervision->told = true;
    supervision->steps_told = supervision->counters->snapshots;
    gd_service_format(supervision->stopping, supervision->runs, supervision->steps_told, text);
    snprintf(line, sizeof(line), "STATUS=%s", text);
    gd_systemd_notify(line);
}

static void on_status_timer(uv_timer_t *timer) {
    struct gd_supervision *supervision = timer->data;
    if (supervision->counters->snapshots != supervision->steps_told)
        tell_status(supervision);
}

static void on_watchdog_timer(uv_timer_t *timer) {
    struct gd_supervision *supervision = timer->data;
    const struct gd_thread_counters *threads = supervision->thread_counters;
    uint32_t working = atomic_load(&threads->working); // before the progress: a part that ends now has got on
    if (gd_watchdog_is_well(&supervision->watchdog, atomic_load(&threads->progress), working))
        gd_systemd_notify("WATCHDOG=1");
}

void gd_supervision_init(struct gd_supervision *supervision, uv_loop_t *loop, const struct gd_counters *counters,
                         const struct gd_thread_counters *thread_counters) {
    *supervision = (struct gd_supervision){.counters = counters, .thread_counters = thread_counters};
    uv_timer_init(loop, &supervision->status_timer);
    supervision->status_timer.data = supervision;
    uv_timer_init(loop, &supervision->watchdog_timer);
    supervision->watchdog_timer.data = supervision;
}

void gd_supervision_begin(struct gd_supervision *supervision) {
    uint64_t interval_ms = gd_systemd_watchdog_us() / 2 / US_PER_MS;
    gd_systemd_notify("READY=1");
    if (interval_ms > 0)
        uv_timer_start(&supervision->watchdog_timer, on_watchdog_timer, interval_ms, interval_ms);
    tell_status(supervision);
}

void gd_supervision_tell_runs(struct gd_supervision *supervision, uint32_t runs) {
    if (supervision->told && runs == supervision->runs)
        return;
    supervision->runs = runs;
    tell_status(supervision);
    if (runs == 0)
        uv_timer_stop(&supervision->status_timer);
    else if (gd_systemd_listens() && !uv_is_active((uv_handle_t *)&supervision->status_timer))
        uv_timer_start(&supervision->status_timer, on_status_timer, STATUS_MS, STATUS_MS);
}

void gd_supervision_stop(struct gd_supervision *supervision) {
    gd_systemd_notify("STOPPING=1");
    supervision->stopping = true;
    tell_status(supervision);
}

void gd_supervision_close(struct gd_supervision *supervision) {
    uv_close((uv_handle_t *)&supervision->status_timer, NULL);
    uv_close((uv_handle_t *)&supervision->watchdog_timer, NULL);
}
