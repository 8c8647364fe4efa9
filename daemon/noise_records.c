#include "noise_records.h"

#include <stdio.h>

#include "event_tensor.h"

enum { TEXT_BYTES = 512 };

static const struct gd_tensor_tag tag = {
    GD_TAG_CRITICAL_PERIOD,
    "Said once, when the average of the Fisher trace (decay 0.99 a step, corrected for its start, from the 20th value "
    "on) has fallen to half of its peak: what a network misses while the trace is high it hardly makes up for later "
    "(Achille et al., arXiv 1711.08856).",
};

size_t gd_noise_records_max(void) {
    return gd_event_tensor_bytes_max(tag, TEXT_BYTES);
}

void gd_noise_append_critical_period(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                     const struct gd_noise_state *state, bool labels_from_model) {
    char text[TEXT_BYTES];
    int bytes = snprintf(text, sizeof(text),
                         "**The critical period is over.** The smoothed `%s` peaked at step %lld with %.6g, and has "
                         "fallen to half of that by step %lld.",
                         labels_from_model ? "fisher/trace" : "fisher/trace_empirical", (long long)state->peak_step,
                         state->peak, (long long)step);
    gd_event_append_text(buffer, wall_time, step, tag, text, (size_t)bytes);
}
