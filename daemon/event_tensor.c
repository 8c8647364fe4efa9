#include "event_tensor.h"

#include <stdbool.h>
#include <stdio.h>

#include "event_record.h"
#include "tags.h"

enum {
    HISTOGRAM_COLUMNS = sizeof(struct gd_histogram_bin) / sizeof(double),
    NUMBER_TEXT_BYTES = 11, // of a 32-bit number
    // Beyond the tag, the description and the content: the record's own bytes, wall time, step, plugin name, shapes,
    // and the keys and lengths of all messages.
    OVERHEAD_BYTES = GD_RECORD_OVERHEAD_BYTES + 176,
};

_Static_assert(sizeof(struct gd_histogram_bin) == HISTOGRAM_COLUMNS * sizeof(double), "a row of the tensor");

// Who shows a value, and what it is.
struct plugin {
    const char *name;
    Tensorboard__DataClass data_class;
    ProtobufCBinaryData content;
};

static ProtobufCBinaryData borrow_bytes(const void *data, size_t bytes) {
    return (ProtobufCBinaryData){bytes, (uint8_t *)(uintptr_t)data};
}

static void append_tensor(struct gd_record_buffer *buffer, double wall_time, int64_t step, struct gd_tensor_tag tag,
                          const struct plugin *plugin, Tensorboard__TensorProto *tensor) {
    Tensorboard__SummaryMetadata__PluginData plugin_data = TENSORBOARD__SUMMARY_METADATA__PLUGIN_DATA__INIT;
    plugin_data.plugin_name = gd_event_borrow(plugin->name);
    plugin_data.has_content = plugin->content.len > 0;
    plugin_data.content = plugin->content;

    Tensorboard__SummaryMetadata metadata = TENSORBOARD__SUMMARY_METADATA__INIT;
    metadata.plugin_data = &plugin_data;
    metadata.summary_description = *tag.description ? gd_event_borrow(tag.description) : NULL;
    metadata.has_data_class = plugin->data_class != TENSORBOARD__DATA_CLASS__DATA_CLASS_UNKNOWN;
    metadata.data_class = plugin->data_class;

    Tensorboard__Summary__Value value = TENSORBOARD__SUMMARY__VALUE__INIT;
    value.tag = gd_event_borrow(tag.name);
    value.metadata = &metadata;
    value.value_case = TENSORBOARD__SUMMARY__VALUE__VALUE_TENSOR;
    value.tensor = tensor;
    Tensorboard__Summary__Value *values[] = {&value};

    Tensorboard__Summary summary = TENSORBOARD__SUMMARY__INIT;
    summary.n_value = 1;
    summary.value = values;
    Tensorboard__Event event = gd_event_at(wall_time, step);
    event.what_case = TENSORBOARD__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    gd_event_append(buffer, &event);
}

// A tensor of strings: a scalar for rank 0, where there is one, or a vector of them.
static void append_strings(struct gd_record_buffer *buffer, double wall_time, int64_t step, struct gd_tensor_tag tag,
                           const struct plugin *plugin, ProtobufCBinaryData *strings, size_t n_strings, size_t rank) {
    Tensorboard__TensorShapeProto__Dim dim = TENSORBOARD__TENSOR_SHAPE_PROTO__DIM__INIT;
    Tensorboard__TensorShapeProto__Dim *dims[] = {&dim};
    dim.has_size = true;
    dim.size = (int64_t)n_strings;
    Tensorboard__TensorShapeProto shape = TENSORBOARD__TENSOR_SHAPE_PROTO__INIT;
    shape.n_dim = rank;
    shape.dim = dims;

    Tensorboard__TensorProto tensor = TENSORBOARD__TENSOR_PROTO__INIT;
    tensor.has_dtype = true;
    tensor.dtype = TENSORBOARD__DATA_TYPE__DT_STRING;
    tensor.tensor_shape = &shape;
    tensor.n_string_val = n_strings;
    tensor.string_val = strings;
    append_tensor(buffer, wall_time, step, tag, plugin, &tensor);
}

void gd_event_append_text(struct gd_record_buffer *buffer, double wall_time, int64_t step, struct gd_tensor_tag tag,
                          const char *text, size_t bytes) {
    static const struct plugin plugin = {"text", TENSORBOARD__DATA_CLASS__DATA_CLASS_TENSOR, {0}};
    ProtobufCBinaryData string = borrow_bytes(text, bytes);
    append_strings(buffer, wall_time, step, tag, &plugin, &string, 1, 0);
}

void gd_event_append_layout(struct gd_record_buffer *buffer, double wall_time, const uint8_t *layout, size_t bytes) {
    static const struct plugin plugin = {"custom_scalars", TENSORBOARD__DATA_CLASS__DATA_CLASS_TENSOR, {0}};
    ProtobufCBinaryData string = borrow_bytes(layout, bytes);
    append_strings(buffer, wall_time, 0, (struct gd_tensor_tag){GD_TAG_LAYOUT, ""}, &plugin, &string, 1, 0);
}

void gd_event_append_image(struct gd_record_buffer *buffer, double wall_time, int64_t step, struct gd_tensor_tag tag,
                           uint32_t width, uint32_t height, const uint8_t *png, size_t bytes) {
    static const struct plugin plugin = {"images", TENSORBOARD__DATA_CLASS__DATA_CLASS_BLOB_SEQUENCE, {0}};
    char width_text[NUMBER_TEXT_BYTES], height_text[NUMBER_TEXT_BYTES];
    int width_bytes = snprintf(width_text, sizeof(width_text), "%u", width);
    int height_bytes = snprintf(height_text, sizeof(height_text), "%u", height);
    ProtobufCBinaryData strings[] = {
        borrow_bytes(width_text, (size_t)width_bytes),
        borrow_bytes(height_text, (size_t)height_bytes),
        borrow_bytes(png, bytes),
    };
    append_strings(buffer, wall_time, step, tag, &plugin, strings, sizeof(strings) / sizeof(strings[0]), 1);
}

void gd_event_append_histogram(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                               struct gd_tensor_tag tag, const struct gd_histogram_bin *bins) {
    static const struct plugin plugin = {"histograms", TENSORBOARD__DATA_CLASS__DATA_CLASS_TENSOR, {0}};
    const int64_t sizes[] = {GD_HISTOGRAM_BINS, HISTOGRAM_COLUMNS};
    Tensorboard__TensorShapeProto__Dim dim[2], *dims[2];
    for (size_t i = 0; i < 2; i++) {
        tensorboard__tensor_shape_proto__dim__init(&dim[i]);
        dim[i].has_size = true;
        dim[i].size = sizes[i];
        dims[i] = &dim[i];
    }
    Tensorboard__TensorShapeProto shape = TENSORBOARD__TENSOR_SHAPE_PROTO__INIT;
    shape.n_dim = 2;
    shape.dim = dims;

    Tensorboard__TensorProto tensor = TENSORBOARD__TENSOR_PROTO__INIT;
    tensor.has_dtype = true;
    tensor.dtype = TENSORBOARD__DATA_TYPE__DT_DOUBLE;
    tensor.tensor_shape = &shape;
    tensor.n_double_val = GD_HISTOGRAM_BINS * HISTOGRAM_COLUMNS;
    tensor.double_val = (double *)(uintptr_t)bins;
    append_tensor(buffer, wall_time, step, tag, &plugin, &tensor);
}

void gd_event_append_hparams(struct gd_record_buffer *buffer, double wall_time, const char *tag, const uint8_t *content,
                             size_t bytes) {
    struct plugin plugin = {"hparams", TENSORBOARD__DATA_CLASS__DATA_CLASS_UNKNOWN, borrow_bytes(content, bytes)};
    // One dimension of size 0, which TensorFlow's own (proto3) writer leaves out: without a tensor that is null, the
    // Python reader's dashboard fails.
    Tensorboard__TensorShapeProto__Dim dim = TENSORBOARD__TENSOR_SHAPE_PROTO__DIM__INIT;
    Tensorboard__TensorShapeProto__Dim *dims[] = {&dim};
    Tensorboard__TensorShapeProto shape = TENSORBOARD__TENSOR_SHAPE_PROTO__INIT;
    shape.n_dim = 1;
    shape.dim = dims;

    Tensorboard__TensorProto tensor = TENSORBOARD__TENSOR_PROTO__INIT;
    tensor.has_dtype = true;
    tensor.dtype = TENSORBOARD__DATA_TYPE__DT_FLOAT;
    tensor.tensor_shape = &shape;
    append_tensor(buffer, wall_time, 0, (struct gd_tensor_tag){tag, ""}, &plugin, &tensor);
}

size_t gd_event_tensor_bytes_max(struct gd_tensor_tag tag, size_t content_bytes) {
    return OVERHEAD_BYTES + strlen(tag.name) + strlen(tag.description) + content_bytes;
}
