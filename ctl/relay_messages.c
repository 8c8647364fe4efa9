// What passes through a relay, and what of it is recorded.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "foreign_fd.h"
#include "gradientd.pb-c.h"
#include "relay.h"

enum { PAYLOAD_BYTES_MIN = 64 << 10 };

static bool keep_message(struct gd_relay *relay, const struct gd_frame *frame) {
    uint8_t *message = realloc(relay->message, (size_t)frame->message_bytes + 1); // 1: realloc(0) frees
    if (!message)
        return false;
    if (frame->message_bytes > 0)
        memcpy(message, frame->message, frame->message_bytes);
    relay->message = message;
    relay->message_bytes = frame->message_bytes;
    return true;
}

static bool keep_payload(struct gd_relay *relay, const uint8_t *data, size_t bytes) {
    size_t needed = relay->payload_bytes + bytes;
    if (needed > relay->payload_capacity) {
        size_t capacity = 2 * needed > PAYLOAD_BYTES_MIN ? 2 * needed : PAYLOAD_BYTES_MIN;
        uint8_t *payload = realloc(relay->payload, capacity);
        if (!payload)
            return false;
        relay->payload = payload;
        relay->payload_capacity = capacity;
    }
    memcpy(relay->payload + relay->payload_bytes, data, bytes);
    relay->payload_bytes = needed;
    return true;
}

static void forget_frame(struct gd_relay *relay) {
    free(relay->submission);
    relay->submission = NULL;
    relay->opens = false;
    relay->payload_bytes = 0;
}

// There is no memory for what passes: it passes all the same.
static void give_up(struct gd_relay *relay) {
    if (relay->recording)
        gd_run_recording_fail(relay->recording, "%s", strerror(ENOMEM));
    gd_opening_deinit(&relay->opening);
    forget_frame(relay);
}

// The OpenRun under way is all there: its message and payload become the opening's. One that means nothing to this
// program is the daemon's to refuse.
static void take_open_run(struct gd_relay *relay) {
    struct gd_opening *opening = &relay->opening;
    struct gd_error error;
    static const uint8_t none[1] = {0};
    const uint8_t *table = relay->payload ? relay->payload : none;
    if (!opening->open_run || gd_open_run_read_table(opening->open_run, table, relay->payload_bytes, &error) < 0) {
        gd_opening_deinit(opening);
        return;
    }
    gd_layout_init(&opening->layout, opening->open_run);
    opening->message = relay->message;
    opening->message_bytes = relay->message_bytes;
    opening->payload = relay->payload;
    opening->payload_bytes = relay->payload_bytes;
    relay->message = relay->payload = NULL;
    relay->payload_capacity = 0;
}

// A frame is all there, but has not gone on.
static void finish_frame(struct gd_relay *relay) {
    if (relay->opens)
        take_open_run(relay);
    if (relay->submission && relay->recording)
        gd_run_recording_take(relay->recording, relay->submission,
                              (struct gd_recorded_bytes){relay->message, relay->message_bytes},
                              (struct gd_recorded_bytes){relay->payload_bytes > 0 ? relay->payload : NULL,
                                                         relay->payload_bytes});
    forget_frame(relay);
}

// Takes the pidfd out of an Attach.
static void keep_pidfd(struct gd_relay *relay, struct gd_flow *flow, struct gd_frame *frame, size_t index) {
    uint8_t packed[64];
    Gradientd__ClientMessage *message =
        gradientd__client_message__unpack(&relay->arena->allocator, frame->message_bytes, frame->message);
    if (message && message->attach) {
        message->attach->has_pidfd = false;
        size_t bytes = gradientd__client_message__get_packed_size(message);
        if (bytes <= sizeof(packed) && bytes <= frame->message_bytes) {
            gradientd__client_message__pack(message, packed);
            gd_flow_shorten(flow, frame, packed, (uint32_t)bytes);
            relay->pidfd = gd_flow_steal_fd(flow, index);
        }
    }
    gd_arena_reset(relay->arena);
}

static void see_attach(struct gd_relay *relay, struct gd_flow *flow, struct gd_frame *frame,
                       const struct gd_attach *attach) {
    size_t pidfd = (size_t)attach->memory + attach->event_file;
    if (relay->recording || relay->memory.base || relay->pidfd >= 0)
        return; // out of order
    if (attach->memory && flow->n_fds > 0 && gd_memory_view_init(&relay->memory, flow->fds[0]) < 0)
        gd_opening_deinit(&relay->opening);
    if (attach->pidfd && flow->n_fds > pidfd && gd_foreign_fd_is_pidfd(flow->fds[pidfd]))
        keep_pidfd(relay, flow, frame, pidfd);
}

static void see_message(void *context, struct gd_flow *flow, struct gd_frame *frame) {
    struct gd_relay *relay = context;
    struct gd_decoded decoded;
    struct gd_error error;

    relay->payload_left = frame->payload_bytes;
    if (relay->spoilt)
        return;
    int result = gd_decode(frame, relay->arena, NULL, &decoded, &error);
    if (result == -ENOMEM)
        give_up(relay);
    if (result < 0) {
        relay->spoilt = true; // the daemon says what is wrong with it and hears nothing more, or knows more than we do
        return;
    }
    if (decoded.kind == GD_CLIENT_ATTACH)
        see_attach(relay, flow, frame, &decoded.attach);
    if (decoded.kind == GD_CLIENT_OPEN_RUN) {
        gd_opening_deinit(&relay->opening);
        relay->opening.open_run = decoded.open_run;
        relay->opens = true;
    }
    if (decoded.kind == GD_CLIENT_SUBMISSION)
        relay->submission = decoded.submission;
    if (!relay->opens && !relay->submission)
        return;
    if (!keep_message(relay, frame))
        give_up(relay);
    else if (frame->payload_bytes == 0)
        finish_frame(relay);
}

static void see_payload(void *context, const uint8_t *data, size_t bytes) {
    struct gd_relay *relay = context;
    relay->payload_left -= bytes;
    if (!relay->opens && !relay->submission)
        return;
    if (!keep_payload(relay, data, bytes))
        give_up(relay);
    else if (relay->payload_left == 0)
        finish_frame(relay);
}

static void see_attached(struct gd_relay *relay, const Gradientd__Attached *attached) {
    if (relay->recording)
        return;
    if (!relay->opening.open_run) {
        gd_recorder_lose(relay->recorder, "its OpenRun or its memory is not what this version knows");
        return;
    }
    relay->recording =
        gd_recorder_attach(relay->recorder, &relay->opening, &relay->memory, attached->committed_sequence);
    gd_opening_deinit(&relay->opening); // of a run that is gone on with
    gd_memory_view_deinit(&relay->memory);
}

static void see_answer(void *context, struct gd_flow *flow, struct gd_frame *frame) {
    struct gd_relay *relay = context;
    (void)flow;
    const Gradientd__DaemonMessage *message =
        gradientd__daemon_message__unpack(&relay->arena->allocator, frame->message_bytes, frame->message);
    if (message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED)
        see_attached(relay, message->attached);
    if (message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED)
        relay->released_sequence = message->released->committed_sequence;
    if (message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR) {
        relay->refused = true;
        snprintf(relay->error, sizeof(relay->error), "%s", message->error->text);
    }
    gd_arena_reset(relay->arena);
}

// A daemon sends no payload.
static void see_no_payload(void *context, const uint8_t *data, size_t bytes) {
    (void)context;
    (void)data;
    (void)bytes;
}

const struct gd_flow_handlers gd_relay_up_handlers = {see_message, see_payload};
const struct gd_flow_handlers gd_relay_down_handlers = {see_answer, see_no_payload};
