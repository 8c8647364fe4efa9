#include <errno.h>
#include <poll.h>
#include <string.h>

#include "internal.h"

// A start vector as options give it: a pointer a group, NULL: zeros.
static void gather(const struct gradientd_run *run, const float *const *vector, uint8_t *to) {
    for (uint32_t i = 0; i < run->n_groups; i++) {
        size_t bytes = run->groups[i].numel * sizeof(float);
        if (vector[i])
            memcpy(to, vector[i], bytes);
        else
            memset(to, 0, bytes);
        to += bytes;
    }
}

// The daemon's reason for going, if it gave one.
static int refused(struct gradientd_run *run, struct gradientd_error *ret_error) {
    Gradientd__DaemonMessage *message;
    int result = client_fail(ret_error, ECONNRESET, "the daemon went away before it took the start vectors");
    while (client_receive(run, 0.0, &message) > 0) {
        if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
            result = client_fail(ret_error, EBADMSG, "the daemon refused: %s", message->error->text);
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
    return result;
}

// Waits until all is sent: what comes next finds the buffer free.
static int drain(struct gradientd_run *run, double deadline, struct gradientd_error *ret_error) {
    for (;;) {
        if (client_flush(run) < 0)
            return refused(run, ret_error);
        if (client_output_is_empty(&run->output))
            return 0;
        if (client_wait(run, deadline, POLLOUT) == 0)
            return client_fail(ret_error, ETIMEDOUT,
                               "the daemon did not take the start vectors within connect_timeout");
    }
}

// Says that a start vector is in its place, or sends it. Waits until that has left.
static int send_start(struct gradientd_run *run, const struct gradientd_options *options,
                      Gradientd__StreamElements *elements, const uint8_t *payload, size_t payload_bytes,
                      struct gradientd_error *ret_error) {
    Gradientd__StartVector body = GRADIENTD__START_VECTOR__INIT;
    body.sequence = ++run->sequence;
    body.elements = elements;
    body.optimizer_step = options->start_optimizer_step;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
    message.start_vector = &body;
    client_send(run, &message, payload, payload_bytes); // a daemon that is gone shows in drain()
    return drain(run, client_now_monotonic() + options->connect_timeout, ret_error);
}

// Hands one of the optimiser's state over, in its place in the memory or, without `layout`, inline.
static int send_vector(struct gradientd_run *run, const struct gradientd_options *options,
                       const Gradientd__StreamLayout *layout, Gradientd__StreamKind kind, const float *const *vector,
                       struct gradientd_error *ret_error) {
    Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
    const uint8_t *payload = NULL;
    size_t payload_bytes = 0;
    elements.kind = kind;
    if (layout) {
        gather(run, vector, run->memory + layout->slots_offset);
        elements.has_slot = true;
    } else {
        gather(run, vector, run->in_line.elements);
        payload = client_inline_payload(run, run->elements * sizeof(float), &elements, &payload_bytes);
    }
    return send_start(run, options, &elements, payload, payload_bytes, ret_error);
}

// Hands over what distances of a stream are measured from, in the stream's first slot, where it stays.
static int send_side(struct gradientd_run *run, const struct gradientd_options *options, enum client_side side,
                     Gradientd__StreamKind kind, struct gradientd_error *ret_error) {
    struct client_side_elements sides[CLIENT_SIDES] = {0};
    Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
    sides[side].is_there = true;
    if (side == CLIENT_PARAMETERS)
        sides[side].slices = options->start_parameters;
    else
        sides[side].all = options->start_outputs;
    client_sides_copy(run, sides);
    elements.kind = kind;
    elements.has_slot = true;
    int result = send_start(run, options, &elements, NULL, 0, ret_error);
    run->sides[side].slots.used_sequence[0] = run->sequence;
    return result;
}

static int send_sides(struct gradientd_run *run, const struct gradientd_options *options,
                      struct gradientd_error *ret_error) {
    int result = 0;
    if (options->start_parameters)
        result = send_side(run, options, CLIENT_PARAMETERS, GRADIENTD__STREAM_KIND__START_PARAMETERS, ret_error);
    if (result == 0 && options->start_outputs)
        result = send_side(run, options, CLIENT_OUTPUTS, GRADIENTD__STREAM_KIND__START_OUTPUTS, ret_error);
    return result;
}

int client_send_start(struct gradientd_run *run, const struct gradientd_options *options,
                      const Gradientd__Layout *layout, struct gradientd_error *ret_error) {
    const struct {
        Gradientd__StreamKind kind;
        const float *const *vector;
    } vectors[] = {
        {GRADIENTD__STREAM_KIND__START_SECOND_MOMENT, options->start_second_moment},
        {GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX, options->start_second_moment_max},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        if (!vectors[i].vector)
            continue;
        const Gradientd__StreamLayout *place = client_find_stream(layout, vectors[i].kind);
        if (run->memory && !place)
            return client_fail(ret_error, EPROTO, "the daemon's memory layout has no place for a start vector");
        int result =
            send_vector(run, options, run->memory ? place : NULL, vectors[i].kind, vectors[i].vector, ret_error);
        if (result < 0)
            return result;
    }
    return send_sides(run, options, ret_error);
}
