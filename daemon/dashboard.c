#include "dashboard.h"

#include <math.h>

#include "charts.h"
#include "event_tensor.h"
#include "hparams.h"
#include "log2_histogram.h"
#include "page.h"
#include "shown.h"
#include "tags.h"

#define LEFT_OUT                                                                                                       \
    "bins of width 1 up to the largest there is; smaller ones than the first bin has are counted in it, zeros, "       \
    "subnormal floats and what is not finite nowhere; of a group of 1,048,576 elements and more one block of 1,024 "   \
    "in eight is counted and stands for all, of smaller ones every element"

static const struct gd_tensor_tag layout_tag = {GD_TAG_LAYOUT, ""};
static const struct gd_tensor_tag page_tag = {GD_TAG_PAGE, ""};
static const struct gd_tensor_tag session_start_tag = {GD_TAG_SESSION_START, ""};
static const struct gd_tensor_tag session_end_tag = {GD_TAG_SESSION_END, ""};
static const struct gd_tensor_tag gradient_tag = {
    GD_TAG_GRADIENT_HISTOGRAM,
    "The distribution of `log2 |g_i|` over the gradient's elements: each bin has the elements of one power of 2 "
    "(" LEFT_OUT "); half precision underflows at -24.",
};
static const struct gd_tensor_tag step_size_tag = {
    GD_TAG_STEP_SIZE_HISTOGRAM,
    "The distribution of `log2 e_t`, `e_t = a_t / (sqrt(vhat_t) + eps)`, over this step's active coordinates (those "
    "with a gradient other than 0): how differently the rule treats them, all in one bin with sgd (" LEFT_OUT ").",
};

static uint64_t histogram_bytes_max(struct gd_tensor_tag tag) {
    return gd_event_tensor_bytes_max(tag, GD_HISTOGRAM_BINS * sizeof(struct gd_histogram_bin));
}

uint64_t gd_dashboard_bytes_max(const struct gd_open_run *open_run) {
    uint32_t shown = gd_shown(open_run);
    return gd_event_tensor_bytes_max(layout_tag, gd_charts_pack(shown, NULL)) +
           gd_event_tensor_bytes_max(page_tag, gd_page_write(shown, NULL)) +
           gd_event_tensor_bytes_max(session_start_tag, gd_hparams_start_bytes_max(&open_run->hparams)) +
           gd_event_tensor_bytes_max(session_end_tag, GD_HPARAMS_END_BYTES_MAX) + histogram_bytes_max(gradient_tag) +
           histogram_bytes_max(step_size_tag);
}

size_t gd_dashboard_content_bytes_max(const struct gd_open_run *open_run) {
    size_t hparams = gd_hparams_start_bytes_max(&open_run->hparams);
    _Static_assert((int)GD_PAGE_BYTES_MAX >= (int)GD_CHARTS_BYTES_MAX, "the page is the larger one");
    return hparams > GD_PAGE_BYTES_MAX ? hparams : GD_PAGE_BYTES_MAX;
}

void gd_dashboard_append_start(struct gd_record_buffer *buffer, const struct gd_open_run *open_run, uint8_t *content) {
    uint32_t shown = gd_shown(open_run);
    size_t bytes = gd_charts_pack(shown, content);
    gd_event_append_layout(buffer, open_run->wall_time, content, bytes);
    bytes = gd_page_write(shown, (char *)content);
    gd_event_append_text(buffer, open_run->wall_time, open_run->first_step, page_tag, (const char *)content, bytes);
}

void gd_dashboard_append_session_start(struct gd_record_buffer *buffer, const struct gd_open_run *open_run,
                                       const struct gd_adam_rates *rates, double batch_size, uint8_t *content) {
    struct gd_known_hparams known = gd_hparams_known(open_run->adam.rule, rates);
    if (batch_size > 0.0)
        known.batch_size = batch_size;
    size_t bytes = gd_hparams_pack_start(&open_run->hparams, &known, open_run->wall_time, content);
    gd_event_append_hparams(buffer, open_run->wall_time, session_start_tag.name, content, bytes);
}

void gd_dashboard_append_session_end(struct gd_record_buffer *buffer, double wall_time, bool failed) {
    uint8_t content[GD_HPARAMS_END_BYTES_MAX];
    size_t bytes = gd_hparams_pack_end(failed, wall_time, content);
    gd_event_append_hparams(buffer, wall_time, session_end_tag.name, content, bytes);
}

void gd_dashboard_append_histograms(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                                    const uint64_t gradient[static GD_EXPONENTS],
                                    const uint64_t step_sizes[static GD_EXPONENTS]) {
    struct gd_histogram_bin bins[GD_HISTOGRAM_BINS];
    if (gd_log2_histogram(gradient, bins))
        gd_event_append_histogram(buffer, wall_time, step, gradient_tag, bins);
    if (gd_log2_histogram(step_sizes, bins))
        gd_event_append_histogram(buffer, wall_time, step, step_size_tag, bins);
}
