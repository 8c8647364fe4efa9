#include "reply.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "frame.h"
#include "gradientd.pb-c.h"
#include "gradientd/protocol.h"

void gd_reply_welcome(struct gd_connection *connection) {
    char name[] = "gradientd " GD_VERSION;
    Gradientd__Welcome welcome = GRADIENTD__WELCOME__INIT;
    welcome.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    welcome.layout_version = GRADIENTD_LAYOUT_VERSION;
    welcome.daemon = name;

    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME;
    message.welcome = &welcome;
    gd_connection_send(connection, &message);
}

enum { STREAMS_MAX = 1 + GD_STATE_ARRAYS_MAX + GD_SIDES };

static void describe_side(enum gd_side side, const struct gd_side_layout *layout, Gradientd__StreamLayout *ret_stream) {
    static const Gradientd__StreamKind kinds[GD_SIDES] = {GRADIENTD__STREAM_KIND__PROBE_GRADIENT,
                                                          GRADIENTD__STREAM_KIND__PARAMETERS,
                                                          GRADIENTD__STREAM_KIND__OUTPUTS};
    ret_stream->kind = kinds[side];
    ret_stream->slots_offset = layout->slots_offset;
    ret_stream->slot_stride_bytes = layout->slot_stride_bytes;
    ret_stream->slots = (uint32_t)layout->slots;
    ret_stream->slot_words_offset = layout->slot_words_offset;
}

void gd_reply_layout(struct gd_connection *connection, const struct gd_layout *layout) {
    Gradientd__StreamLayout stream[STREAMS_MAX];
    Gradientd__StreamLayout *streams[STREAMS_MAX];
    for (uint32_t i = 0; i < STREAMS_MAX; i++) {
        stream[i] = (Gradientd__StreamLayout)GRADIENTD__STREAM_LAYOUT__INIT;
        streams[i] = &stream[i];
    }
    stream[0].kind = GRADIENTD__STREAM_KIND__GRADIENT;
    stream[0].slots_offset = layout->slots_offset;
    stream[0].slot_stride_bytes = layout->slot_stride_bytes;
    stream[0].slots = layout->slots;
    stream[0].slot_words_offset = layout->slot_words_offset;
    for (uint32_t array = 0; array < layout->start_arrays; array++) {
        Gradientd__StreamLayout *start = streams[1 + array];
        start->kind =
            array == 0 ? GRADIENTD__STREAM_KIND__START_SECOND_MOMENT : GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX;
        start->slots_offset = layout->second_moment_offset[0][1][array];
        start->slot_stride_bytes = layout->second_moment_bytes;
        start->slots = 1;
    }
    size_t n_streams = 1 + layout->start_arrays;
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        if (layout->sides[side].slots > 0)
            describe_side(side, &layout->sides[side], streams[n_streams++]);
    Gradientd__Layout reply = GRADIENTD__LAYOUT__INIT;
    reply.layout_version = layout->version;
    reply.total_bytes = layout->total_bytes;
    reply.waiting_offset = layout->waiting_offset;
    reply.notices_offset = layout->notices_offset;
    reply.commits_offset = layout->commits_offset;
    reply.n_streams = n_streams;
    reply.streams = streams;

    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT;
    message.layout = &reply;
    gd_connection_send(connection, &message);
}

void gd_reply_attached(struct gd_connection *connection, uint64_t committed_sequence, uint64_t written_offset,
                       const char *event_path) {
    Gradientd__Attached attached = GRADIENTD__ATTACHED__INIT;
    attached.committed_sequence = committed_sequence;
    attached.written_offset = written_offset;
    attached.event_path = gd_reply_borrow(event_path);

    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED;
    message.attached = &attached;
    gd_connection_send(connection, &message);
}

void gd_reply_released(struct gd_connection *connection, uint64_t committed_sequence) {
    Gradientd__Released released = GRADIENTD__RELEASED__INIT;
    released.committed_sequence = committed_sequence;

    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED;
    message.released = &released;
    gd_connection_send(connection, &message);
}

char *gd_reply_borrow(const char *text) {
    union {
        const char *borrowed;
        char *field;
    } pointer = {.borrowed = text};
    return pointer.field;
}

void gd_reply_fill_alert(const struct gd_alert_message *alert, Gradientd__Alert *ret_alert) {
    *ret_alert = (Gradientd__Alert)GRADIENTD__ALERT__INIT;
    ret_alert->rule = gd_reply_borrow(alert->rule);
    ret_alert->step = alert->step;
    ret_alert->onset = alert->onset;
    ret_alert->text = gd_reply_borrow(alert->text);
    ret_alert->group = gd_reply_borrow(alert->group);
}

bool gd_reply_alert(struct gd_connection *connection, const struct gd_alert_message *alert) {
    Gradientd__Alert body;
    gd_reply_fill_alert(alert, &body);

    Gradientd__DaemonMessage message = GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_ALERT;
    message.alert = &body;
    return gd_connection_offer(connection, &message);
}

// An Error in a frame. protobuf-c's fields are not const, hence the copies.
struct error_reply {
    char field[64], text[GD_ERROR_TEXT_BYTES];
    Gradientd__Error error;
    Gradientd__DaemonMessage message;
};

static void error_reply_init(struct error_reply *reply, const struct gd_error *error) {
    snprintf(reply->field, sizeof(reply->field), "%s", error->field);
    snprintf(reply->text, sizeof(reply->text), "%s", error->text);
    reply->error = (Gradientd__Error)GRADIENTD__ERROR__INIT;
    reply->error.code = (Gradientd__ErrorCode)error->code;
    reply->error.field = reply->field;
    reply->error.text = reply->text;
    reply->message = (Gradientd__DaemonMessage)GRADIENTD__DAEMON_MESSAGE__INIT;
    reply->message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR;
    reply->message.error = &reply->error;
}

void gd_reply_error(struct gd_connection *connection, const struct gd_error *error) {
    struct error_reply reply;
    error_reply_init(&reply, error);
    gd_connection_send(connection, &reply.message);
}

void gd_reply_error_to(int fd, const struct gd_error *error) {
    uint8_t frame[GRADIENTD_FRAME_HEADER_BYTES + 2 * sizeof(struct error_reply)];
    struct error_reply reply;
    error_reply_init(&reply, error);
    size_t message_bytes = gradientd__daemon_message__get_packed_size(&reply.message);
    assert(GRADIENTD_FRAME_HEADER_BYTES + message_bytes <= sizeof(frame));
    gd_frame_write_header(frame, (uint32_t)message_bytes, 0);
    gradientd__daemon_message__pack(&reply.message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    (void)send(fd, frame, GRADIENTD_FRAME_HEADER_BYTES + message_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
}
