#include "metrics.h"

#include "metrics_text.h"

enum {
    MS_PER_SECOND = 1000,
    LAST_WRITE_MS = 1000, // of a daemon that ends: systemd waits for it
};

static void on_timer(uv_timer_t *timer) {
    struct gd_metrics *metrics = timer->data;
    struct gd_daemon_status status;
    struct gd_metrics_text text;
    metrics->measure(metrics->context, &status);
    gd_metrics_format(&status, &text);
    if (!gd_metrics_file_write(metrics->file, &text))
        metrics->counters->metrics_skipped++;
}

void gd_metrics_init(struct gd_metrics *metrics, uv_loop_t *loop, struct gd_metrics_file *file,
                     struct gd_counters *counters, void (*measure)(void *context, struct gd_daemon_status *ret_status),
                     void *context) {
    *metrics = (struct gd_metrics){.file = file, .counters = counters, .measure = measure, .context = context};
    uv_timer_init(loop, &metrics->timer);
    metrics->timer.data = metrics;
}

void gd_metrics_start(struct gd_metrics *metrics, uint32_t interval_s) {
    if (metrics->file)
        uv_timer_start(&metrics->timer, on_timer, 0, (uint64_t)interval_s * MS_PER_SECOND);
}

void gd_metrics_close(struct gd_metrics *metrics) {
    uv_close((uv_handle_t *)&metrics->timer, NULL);
}

void gd_metrics_finish(struct gd_metrics *metrics) {
    struct gd_daemon_status status;
    struct gd_metrics_text text;
    if (!metrics->file)
        return;
    metrics->measure(metrics->context, &status);
    gd_metrics_format(&status, &text);
    gd_metrics_file_finish(metrics->file, &text, LAST_WRITE_MS);
    metrics->file = NULL;
}
