#include "pace.h"

#include <math.h>

// The `back`th of the last marks, from 0 on.
static const struct gd_pace_mark *mark_before(const struct gd_pace *pace, uint32_t back) {
    return &pace->marks[(pace->next + GD_PACE_MARKS - 1 - back) % GD_PACE_MARKS];
}

void gd_pace_count(struct gd_pace *pace, uint64_t now_ms) {
    pace->events++;
    pace->last_ms = now_ms;
    if (pace->seen > 0 && now_ms - mark_before(pace, 0)->at_ms < GD_PACE_MARK_MS)
        return;
    pace->marks[pace->next] = (struct gd_pace_mark){now_ms, pace->events};
    pace->next = (pace->next + 1) % GD_PACE_MARKS;
    if (pace->seen < GD_PACE_MARKS)
        pace->seen++;
}

// Where to count from: the last mark that the window does not reach and that enough has happened since, or the first
// that there is.
static const struct gd_pace_mark *find_start(const struct gd_pace *pace, uint64_t now_ms) {
    for (uint32_t back = 0; back < pace->seen; back++) {
        const struct gd_pace_mark *mark = mark_before(pace, back);
        if (now_ms - mark->at_ms >= GD_PACE_WINDOW_MS && pace->events - mark->events >= GD_PACE_EVENTS_MIN)
            return mark;
    }
    return mark_before(pace, pace->seen - 1);
}

double gd_pace_per_second(const struct gd_pace *pace, uint64_t now_ms) {
    if (pace->seen == 0)
        return (double)NAN;
    const struct gd_pace_mark *start = find_start(pace, now_ms);
    double events = (double)(pace->events - start->events);
    double span_ms = (double)(pace->last_ms - start->at_ms), quiet_ms = (double)(now_ms - pace->last_ms);
    if (events == 0.0 || span_ms == 0.0)
        return (double)NAN;
    double interval_ms = span_ms / events;
    if (quiet_ms > interval_ms) // the next one is late, and that counts
        span_ms += quiet_ms - interval_ms;
    double per_second = events / span_ms * 1e3;
    double most = quiet_ms > 0.0 ? 1e3 / quiet_ms : (double)INFINITY; // of what has not happened for longer than that
    return quiet_ms >= GD_PACE_WINDOW_MS && per_second > most ? most : per_second;
}
