#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "frame.h"
#include "internal.h"

double client_now_monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double client_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int client_flush(struct gradientd_run *run) {
    if (run->output.keeps && run->link != CLIENT_ATTACHED)
        return 0; // kept until a daemon is back
    while (!client_output_is_empty(&run->output)) {
        struct iovec pieces[3];
        struct msghdr header = {.msg_iov = pieces, .msg_iovlen = (size_t)client_output_pieces(&run->output, pieces)};
        ssize_t bytes = sendmsg(run->socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (bytes >= 0)
            client_output_consume(&run->output, (size_t)bytes);
        else if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
            return 0; // ENOBUFS and ENOMEM are the kernel's for now, like a full socket: the bytes stay where they are
        else if (errno != EINTR)
            return -errno;
    }
    return 0;
}

int client_send(struct gradientd_run *run, const Gradientd__ClientMessage *message, const uint8_t *payload,
                size_t payload_bytes) {
    bool closing = message->message_case == GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    size_t limit = CLIENT_OUTPUT_BYTES_MAX + (closing ? CLIENT_CLOSE_BYTES : 0);
    int result = client_output_append(&run->output, message, payload_bytes, limit);
    if (result < 0) {
        int flushed = client_flush(run);
        return flushed < 0 ? flushed : result;
    }
    if (payload_bytes > 0)
        client_output_add_payload(&run->output, payload, payload_bytes);
    return client_flush(run);
}

// protobuf-c was measured to take 60 times a hostile message's bytes; what a daemon has to say takes a few hundred.
static void *allocate_bounded(void *left, size_t bytes) {
    size_t *left_bytes = left;
    if (bytes > *left_bytes)
        return NULL;
    *left_bytes -= bytes;
    return malloc(bytes);
}

static void free_bounded(void *left, void *block) {
    (void)left;
    free(block);
}

// What it returns can be freed without an allocator.
static Gradientd__DaemonMessage *unpack(const struct gd_frame *frame) {
    enum { UNPACKED_BYTES_MAX = 64 << 10 };
    size_t left_bytes = UNPACKED_BYTES_MAX;
    ProtobufCAllocator bounded = {allocate_bounded, free_bounded, &left_bytes};
    return gradientd__daemon_message__unpack(&bounded, frame->message_bytes, frame->message);
}

// Takes a whole frame off the input. Returns 1, 0 when there is none, or -EPROTO.
static int take_frame(struct gradientd_run *run, Gradientd__DaemonMessage **ret_message) {
    struct gd_frame frame;
    struct gd_error error;

    int result = gd_frame_parse(run->input, run->input_bytes, &frame, &error);
    if (result < 0 || (result == GD_FRAME_COMPLETE && frame.payload_bytes > 0))
        return -EPROTO;
    if (result == GD_FRAME_INCOMPLETE)
        return 0;
    *ret_message = unpack(&frame);
    run->input_bytes -= frame.head_bytes;
    memmove(run->input, run->input + frame.head_bytes, run->input_bytes);
    return *ret_message ? 1 : -EPROTO;
}

int client_wait(const struct gradientd_run *run, double deadline, short events) {
    for (;;) {
        double left = deadline > 0.0 ? deadline - client_now_monotonic() : 0.0;
        int milliseconds = left <= 0.0 ? 0 : left > 1e6 ? 1000000000 : (int)ceil(left * 1e3);
        struct pollfd poll_socket = {.fd = run->socket, .events = events};
        int ready = poll(&poll_socket, 1, milliseconds);
        if (ready > 0)
            return poll_socket.revents;
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (milliseconds == 0)
            return 0;
    }
}

// Waits until the socket has something to read. Returns 1, 0 at the deadline, or a negative errno.
static int wait_readable(struct gradientd_run *run, double deadline) {
    for (;;) {
        bool unsent = !client_output_is_empty(&run->output);
        int events = client_wait(run, deadline, (short)(POLLIN | (unsent ? POLLOUT : 0)));
        if (events <= 0)
            return events;
        if (events & (POLLIN | POLLHUP | POLLERR))
            return 1;
        if (client_flush(run) < 0)
            return 1; // what the daemon said before it went is still to be read
        if (client_now_monotonic() >= deadline)
            return 0;
    }
}

// Reads what is there, without waiting. Returns 1, 0 when that is nothing, or -ECONNRESET.
static int read_once(struct gradientd_run *run) {
    enum { PIECE_BYTES = 16 << 10 }; // whatever is behind a message moves to the front when that is taken
    size_t room = GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX - run->input_bytes;
    ssize_t bytes =
        recv(run->socket, run->input + run->input_bytes, room < PIECE_BYTES ? room : PIECE_BYTES, MSG_DONTWAIT);
    if (bytes > 0) {
        run->input_bytes += (size_t)bytes;
        return 1;
    }
    return bytes < 0 && (errno == EINTR || errno == EAGAIN) ? 0 : -ECONNRESET;
}

int client_receive(struct gradientd_run *run, double deadline, Gradientd__DaemonMessage **ret_message) {
    int result = take_frame(run, ret_message);
    while (result == 0) {
        result = deadline > 0.0 ? wait_readable(run, deadline) : 1;
        if (result > 0)
            result = read_once(run);
        if (result < 0)
            break;
        result = take_frame(run, ret_message);
        if (client_now_monotonic() >= deadline)
            break; // however fast somebody sends it byte by byte
    }
    return result;
}
