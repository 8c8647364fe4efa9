// TensorBoard records of what is no scalar: text, histograms, images, hyperparameters, the layout of Custom Scalars.
// Pure, as event.h. Each value is an Event of its own and carries its metadata, which is read where it is the tag's
// first and ignored elsewhere.
#pragma once

#include "event.h"

enum { GD_HISTOGRAM_BINS = 30 };

struct gd_histogram_bin {
    double left, right, count;
};

// What a value is shown under. Strings are borrowed.
struct gd_tensor_tag {
    const char *name;
    const char *description; // markdown, "": none
};

// Markdown, `bytes` bytes of UTF-8.
void gd_event_append_text(struct gd_record_buffer *buffer, double wall_time, int64_t step, struct gd_tensor_tag tag,
                          const char *text, size_t bytes);

// GD_HISTOGRAM_BINS bins, which rise and do not overlap.
void gd_event_append_histogram(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                               struct gd_tensor_tag tag, const struct gd_histogram_bin *bins);

// A PNG of width x height pixels.
void gd_event_append_image(struct gd_record_buffer *buffer, double wall_time, int64_t step, struct gd_tensor_tag tag,
                           uint32_t width, uint32_t height, const uint8_t *png, size_t bytes);

// The run's layout of Custom Scalars: `bytes` bytes of a serialised tensorboard.Layout.
void gd_event_append_layout(struct gd_record_buffer *buffer, double wall_time, const uint8_t *layout, size_t bytes);

// One of the tags of the HParams plugin, with a serialised tensorboard.HParamsPluginData.
void gd_event_append_hparams(struct gd_record_buffer *buffer, double wall_time, const char *tag, const uint8_t *content,
                             size_t bytes);

// At least what one of these appends for `content_bytes` of content.
size_t gd_event_tensor_bytes_max(struct gd_tensor_tag tag, size_t content_bytes);
