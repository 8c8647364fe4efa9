#include "event.h"

#include <assert.h>
#include <stdbool.h>

#include "bytes.h"
#include "crc32c.h"
#include "event_record.h"

enum {
    VARINT_BYTES_MAX = 10,

    // Keys, field number << 3 | wire type, of what is written here rather than by protobuf-c: scalars, of which a step
    // has hundreds. All are one byte.
    BYTES_WIRE = 2, // a length and so many bytes
    EVENT_SUMMARY_KEY = 5 << 3 | BYTES_WIRE,
    SUMMARY_VALUE_KEY = 1 << 3 | BYTES_WIRE,
    VALUE_TAG_KEY = 1 << 3 | BYTES_WIRE,
    VALUE_SIMPLE_VALUE_KEY = 2 << 3 | 5, // four bytes
    VALUE_METADATA_KEY = 9 << 3 | BYTES_WIRE,
    METADATA_PLUGIN_DATA_KEY = 1 << 3 | BYTES_WIRE,
    METADATA_DESCRIPTION_KEY = 3 << 3 | BYTES_WIRE,
    METADATA_DATA_CLASS_KEY = 4 << 3, // a varint
    PLUGIN_DATA_NAME_KEY = 1 << 3 | BYTES_WIRE,
    KEY_BYTES = 1,

    SIMPLE_VALUE_BYTES = KEY_BYTES + sizeof(float),
    DATA_CLASS_BYTES = KEY_BYTES + 1,
    DATA_CLASS_SCALAR = 1,
};

static const char plugin_scalars[] = "scalars";

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

Tensorboard__Event gd_event_at(double wall_time, int64_t step) {
    Tensorboard__Event event = TENSORBOARD__EVENT__INIT;
    event.has_wall_time = true;
    event.wall_time = wall_time;
    event.has_step = step != 0;
    event.step = step;
    return event;
}

void gd_event_append(struct gd_record_buffer *buffer, const Tensorboard__Event *event) {
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

    Tensorboard__Event event = gd_event_at(wall_time, step);
    event.what_case = TENSORBOARD__EVENT__WHAT_SESSION_LOG;
    event.session_log = &session_log;
    gd_event_append(buffer, &event);
}

void gd_event_append_start(struct gd_record_buffer *buffer, double wall_time, int64_t first_step) {
    Tensorboard__SourceMetadata source = TENSORBOARD__SOURCE_METADATA__INIT;
    source.writer = gd_event_borrow("gradientd");

    Tensorboard__Event event = gd_event_at(wall_time, 0);
    event.what_case = TENSORBOARD__EVENT__WHAT_FILE_VERSION;
    event.file_version = gd_event_borrow("brain.Event:2");
    event.source_metadata = &source;
    gd_event_append(buffer, &event);

    append_session_log(buffer, wall_time, first_step, TENSORBOARD__SESSION_LOG__STATUS__START);
}

void gd_event_append_stop(struct gd_record_buffer *buffer, double wall_time, int64_t step) {
    append_session_log(buffer, wall_time, step, TENSORBOARD__SESSION_LOG__STATUS__STOP);
}

static size_t delimited_bytes(size_t content_bytes) {
    return KEY_BYTES + varint_bytes(content_bytes) + content_bytes;
}

static size_t metadata_bytes(size_t description_bytes) {
    size_t plugin_data_bytes = delimited_bytes(sizeof(plugin_scalars) - 1);
    return delimited_bytes(plugin_data_bytes) + (description_bytes > 0 ? delimited_bytes(description_bytes) : 0) +
           DATA_CLASS_BYTES;
}

// Of a Summary.Value without its key and length.
static size_t value_bytes(const struct gd_scalar *scalar) {
    size_t bytes = delimited_bytes(scalar->tag_bytes) + SIMPLE_VALUE_BYTES;
    return scalar->description ? bytes + delimited_bytes(metadata_bytes(strlen(scalar->description))) : bytes;
}

static void put_key(struct gd_record_buffer *buffer, uint8_t key) {
    buffer->data[buffer->used++] = key;
}

// The key and length of what comes next.
static void put_delimiter(struct gd_record_buffer *buffer, uint8_t key, size_t bytes) {
    put_key(buffer, key);
    put_varint(buffer, bytes);
}

static void put_text(struct gd_record_buffer *buffer, uint8_t key, const char *text, size_t bytes) {
    put_delimiter(buffer, key, bytes);
    memcpy(buffer->data + buffer->used, text, bytes);
    buffer->used += bytes;
}

static void put_metadata(struct gd_record_buffer *buffer, const char *description) {
    size_t description_bytes = strlen(description);
    put_delimiter(buffer, VALUE_METADATA_KEY, metadata_bytes(description_bytes));
    put_delimiter(buffer, METADATA_PLUGIN_DATA_KEY, delimited_bytes(sizeof(plugin_scalars) - 1));
    put_text(buffer, PLUGIN_DATA_NAME_KEY, plugin_scalars, sizeof(plugin_scalars) - 1);
    if (description_bytes > 0)
        put_text(buffer, METADATA_DESCRIPTION_KEY, description, description_bytes);
    put_key(buffer, METADATA_DATA_CLASS_KEY);
    put_varint(buffer, DATA_CLASS_SCALAR);
}

static void put_scalar(struct gd_record_buffer *buffer, const struct gd_scalar *scalar) {
    uint32_t bits;
    memcpy(&bits, &scalar->value, sizeof(bits));
    put_delimiter(buffer, SUMMARY_VALUE_KEY, value_bytes(scalar));
    put_text(buffer, VALUE_TAG_KEY, scalar->tag, scalar->tag_bytes);
    put_key(buffer, VALUE_SIMPLE_VALUE_KEY);
    gd_write_u32le(buffer->data + buffer->used, bits);
    buffer->used += sizeof(bits);
    if (scalar->description)
        put_metadata(buffer, scalar->description);
}

void gd_event_append_scalars(struct gd_record_buffer *buffer, double wall_time, int64_t step,
                             const struct gd_scalar *scalars, size_t n_scalars) {
    if (n_scalars == 0)
        return;

    Tensorboard__Event event = gd_event_at(wall_time, step);
    size_t content_bytes = 0;
    for (size_t i = 0; i < n_scalars; i++)
        content_bytes += delimited_bytes(value_bytes(&scalars[i]));
    size_t data_bytes = protobuf_c_message_get_packed_size(&event.base) + delimited_bytes(content_bytes);

    // The summary is the highest field this event has, so writing it last keeps the order of field numbers.
    record_begin(buffer, data_bytes);
    put_message(buffer, &event.base);
    put_delimiter(buffer, EVENT_SUMMARY_KEY, content_bytes);
    for (size_t i = 0; i < n_scalars; i++)
        put_scalar(buffer, &scalars[i]);
    put_checksum(buffer, data_bytes);
}

// A step's record is counted whole with each of its scalars, so that a sum over scalars bounds the step.
size_t gd_event_scalar_bytes_max(size_t tag_bytes, size_t description_bytes) {
    size_t bytes = delimited_bytes(tag_bytes) + SIMPLE_VALUE_BYTES + delimited_bytes(metadata_bytes(description_bytes));
    size_t wall_time_bytes = KEY_BYTES + sizeof(double);
    size_t step_bytes = KEY_BYTES + VARINT_BYTES_MAX;
    return GD_RECORD_OVERHEAD_BYTES + wall_time_bytes + step_bytes + delimited_bytes(delimited_bytes(bytes));
}
