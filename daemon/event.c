#include "event.h"

#include <assert.h>
#include <stdbool.h>

#include "bytes.h"
#include "crc32c.h"
#include "tensorboard.pb-c.h"

enum {
    VARINT_BYTES_MAX = 10,

    // Keys of the two length-delimited fields that are written here rather than by protobuf-c, so that a step with any
    // number of scalars needs no array of messages: field number << 3 | wire type 2.
    EVENT_SUMMARY_KEY = 5 << 3 | 2,
    SUMMARY_VALUE_KEY = 1 << 3 | 2,
    KEY_BYTES = 1,
};

static const char plugin_scalars[] = "scalars";

// A Summary.Value with the messages it points to.
struct scalar_message {
    Tensorboard__Summary__Value value;
    Tensorboard__SummaryMetadata metadata;
    Tensorboard__SummaryMetadata__PluginData plugin_data;
};

// protobuf-c's structs hold char *, also for messages that are only packed.
static char *borrow(const char *text) {
    return (char *)(uintptr_t)text;
}

static size_t varint_bytes(uint64_t value) {
    size_t bytes = 1;
    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

static void put_varint(struct gd_record_buffer *buffer, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        buffer->data[buffer->used++] = (uint8_t)(value | 0x80);
    buffer->data[buffer->used++] = (uint8_t)value;
}

// The checksum of the `bytes` bytes before it.
static void put_checksum(struct gd_record_buffer *buffer, size_t bytes) {
    uint8_t *end = buffer->data + buffer->used;
    gd_write_u32le(end, gd_crc32c_masked(end - bytes, bytes));
    buffer->used += 4;
}

static void put_message(struct gd_record_buffer *buffer, const ProtobufCMessage *message) {
    buffer->used += protobuf_c_message_pack(message, buffer->data + buffer->used);
}

static void record_begin(struct gd_record_buffer *buffer, size_t data_bytes) {
    assert(buffer->used <= buffer->capacity);
    assert(buffer->capacity - buffer->used >= GD_RECORD_OVERHEAD_BYTES);
    assert(buffer->capacity - buffer->used - GD_RECORD_OVERHEAD_BYTES >= data_bytes);

    gd_write_u64le(buffer->data + buffer->used, data_bytes);
    buffer->used += 8;
    put_checksum(buffer, 8);
}

// `step` 0 is not written, as TensorFlow's own (proto3) writer leaves it out.
static Tensorboard__Event event_at(double wall_time, int64_t step) {
    Tensorboard__Event event = TENSORBOARD__EVENT__INIT;
    event.has_wall_time = true;
    event.wall_time = wall_time;
    event.has_step = step != 0;
    event.step = step;
    return event;
}

static void append_event(struct gd_record_buffer *buffer, const Tensorboard__Event *event) {
    size_t data_bytes = protobuf_c_message_get_packed_size(&event->base);
    record_begin(buffer, data_bytes);
    put_message(buffer, &event->base);
    put_checksum(buffer, data_bytes);
}

static void append_session_log(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                               Tensorboard__SessionLog__Status status) {
    Tensorboard__SessionLog session_log = TENSORBOARD__SESSION_LOG__INIT;
    session_log.has_status = true;
    session_log.status = status;

    Tensorboard__Event event = event_at(wall_time, step);
    event.what_case = TENSORBOARD__EVENT__WHAT_SESSION_LOG;
    event.session_log = &session_log;
    append_event(buffer, &event);
}

void gd_event_append_start(struct gd_record_buffer *buffer, double wall_time, int64_t first_step) {
    Tensorboard__SourceMetadata source = TENSORBOARD__SOURCE_METADATA__INIT;
    source.writer = borrow("gradientd");

    Tensorboard__Event event = event_at(wall_time, 0);
    event.what_case = TENSORBOARD__EVENT__WHAT_FILE_VERSION;
    event.file_version = borrow("brain.Event:2");
    event.source_metadata = &source;
    append_event(buffer, &event);

    append_session_log(buffer, wall_time, first_step, TENSORBOARD__SESSION_LOG__STATUS__START);
}

void gd_event_append_stop(struct gd_record_buffer *buffer, double wall_time, int64_t step) {
    append_session_log(buffer, wall_time, step, TENSORBOARD__SESSION_LOG__STATUS__STOP);
}

// The messages point at one another, so they are filled in place and must not be copied.
static void scalar_message_init(struct scalar_message *message, const struct gd_scalar *scalar) {
    message->value = (Tensorboard__Summary__Value)TENSORBOARD__SUMMARY__VALUE__INIT;
    message->value.tag = borrow(scalar->tag);
    message->value.value_case = TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE;
    message->value.simple_value = scalar->value;
    if (!scalar->description)
        return;

    message->plugin_data = (Tensorboard__SummaryMetadata__PluginData)TENSORBOARD__SUMMARY_METADATA__PLUGIN_DATA__INIT;
    message->plugin_data.plugin_name = borrow(plugin_scalars);
    message->metadata = (Tensorboard__SummaryMetadata)TENSORBOARD__SUMMARY_METADATA__INIT;
    message->metadata.plugin_data = &message->plugin_data;
    if (scalar->description[0] != '\0')
        message->metadata.summary_description = borrow(scalar->description);
    message->metadata.has_data_class = true;
    message->metadata.data_class = TENSORBOARD__DATA_CLASS__DATA_CLASS_SCALAR;
    message->value.metadata = &message->metadata;
}

static size_t delimited_bytes(size_t content_bytes) {
    return KEY_BYTES + varint_bytes(content_bytes) + content_bytes;
}

static size_t summary_bytes(const struct gd_scalar *scalars, size_t n_scalars) {
    size_t bytes = 0;
    for (size_t i = 0; i < n_scalars; i++) {
        struct scalar_message message;
        scalar_message_init(&message, &scalars[i]);
        bytes += delimited_bytes(protobuf_c_message_get_packed_size(&message.value.base));
    }
    return bytes;
}

static void put_scalar(struct gd_record_buffer *buffer, const struct gd_scalar *scalar) {
    struct scalar_message message;
    scalar_message_init(&message, scalar);
    put_varint(buffer, SUMMARY_VALUE_KEY);
    put_varint(buffer, protobuf_c_message_get_packed_size(&message.value.base));
    put_message(buffer, &message.value.base);
}

void gd_event_append_scalars(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                             const struct gd_scalar *scalars, size_t n_scalars) {
    if (n_scalars == 0)
        return;

    Tensorboard__Event event = event_at(wall_time, step);
    size_t content_bytes = summary_bytes(scalars, n_scalars);
    size_t data_bytes = protobuf_c_message_get_packed_size(&event.base) + delimited_bytes(content_bytes);

    // The summary is the highest field this event has, so writing it last keeps the order of field numbers.
    record_begin(buffer, data_bytes);
    put_message(buffer, &event.base);
    put_varint(buffer, EVENT_SUMMARY_KEY);
    put_varint(buffer, content_bytes);
    for (size_t i = 0; i < n_scalars; i++)
        put_scalar(buffer, &scalars[i]);
    put_checksum(buffer, data_bytes);
}

// A step's record is counted whole with each of its scalars, so that a sum over scalars bounds the step.
size_t gd_event_scalar_bytes_max(size_t tag_bytes, size_t description_bytes) {
    size_t plugin_data_bytes = delimited_bytes(sizeof(plugin_scalars) - 1);
    size_t data_class_bytes = KEY_BYTES + 1;
    size_t metadata_bytes = delimited_bytes(plugin_data_bytes) + data_class_bytes;
    if (description_bytes > 0)
        metadata_bytes += delimited_bytes(description_bytes);

    size_t simple_value_bytes = KEY_BYTES + sizeof(float);
    size_t value_bytes = delimited_bytes(tag_bytes) + simple_value_bytes + delimited_bytes(metadata_bytes);

    size_t wall_time_bytes = KEY_BYTES + sizeof(double);
    size_t step_bytes = KEY_BYTES + VARINT_BYTES_MAX;
    return GD_RECORD_OVERHEAD_BYTES + wall_time_bytes + step_bytes + delimited_bytes(delimited_bytes(value_bytes));
}
