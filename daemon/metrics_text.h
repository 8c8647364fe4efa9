// The metrics that the daemon tells of itself, as text for whoever collects them: OpenMetrics, written so that a parser
// of Prometheus' older text format takes it too (only the types that it knows).
#pragma once

#include <stddef.h>

#include "counters.h"

enum { GD_METRICS_BYTES_MAX = 8 << 10 }; // with its terminating 0; every number at its longest takes some 5 KiB

struct gd_metrics_text {
    char text[GD_METRICS_BYTES_MAX]; // 0-terminated
    size_t bytes;
};

void gd_metrics_format(const struct gd_daemon_status *status, struct gd_metrics_text *ret_text);
