#include "diagnostics/silence.h"

#include <stdlib.h>
#include <string.h>

bool gd_silence_arrive(struct gd_silence *silence, uint64_t now_ms, int64_t step) {
    bool was_silent = silence->silent;
    if (silence->begun && !was_silent) {
        silence->interval_ms[silence->next] = now_ms - silence->last_ms;
        silence->next = (silence->next + 1) % GD_SILENCE_INTERVALS;
        if (silence->seen < GD_SILENCE_INTERVALS)
            silence->seen++;
    }
    silence->last_ms = now_ms;
    silence->last_step = step;
    silence->begun = true;
    silence->silent = false;
    return was_silent;
}

static int compare(const void *a, const void *b) {
    uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;
    return (first > second) - (first < second);
}

uint64_t gd_silence_median_ms(const struct gd_silence *silence) {
    uint64_t sorted[GD_SILENCE_INTERVALS];
    memcpy(sorted, silence->interval_ms, silence->seen * sizeof(*sorted));
    qsort(sorted, silence->seen, sizeof(*sorted), compare);
    return sorted[(silence->seen - 1) / 2];
}

uint64_t gd_silence_deadline_ms(const struct gd_silence *silence, double intervals) {
    const double longest_ms = 1e15; // thirty thousand years, far from where the sum would overflow
    if (silence->silent || silence->seen < GD_SILENCE_INTERVALS_MIN || !(intervals < longest_ms))
        return UINT64_MAX;
    double wait_ms = intervals * (double)gd_silence_median_ms(silence);
    if (wait_ms >= longest_ms)
        return UINT64_MAX;
    return silence->last_ms + (wait_ms > GD_SILENCE_MS_MIN ? (uint64_t)wait_ms : GD_SILENCE_MS_MIN);
}
