#include <errno.h>
#include <math.h>
#include <poll.h>
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
    size_t sent = 0;
    int result = 0;

    while (sent < run->output_bytes) {
        ssize_t bytes = send(run->socket, run->output + sent, run->output_bytes - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (bytes >= 0) {
            sent += (size_t)bytes;
        } else if (errno != EINTR) {
            // ENOBUFS and ENOMEM are the kernel's for now, like a full socket: the bytes stay where they are
            bool later = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM;
            result = later ? 0 : -errno;
            break;
        }
    }
    run->output_bytes -= sent;
    memmove(run->output, run->output + sent, run->output_bytes);
    return result;
}

int client_send(struct gradientd_run *run, const Gradientd__ClientMessage *message) {
    size_t message_bytes = gradientd__client_message__get_packed_size(message);
    bool closing = message->message_case == GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    size_t limit = CLIENT_OUTPUT_BYTES_MAX + (closing ? CLIENT_CLOSE_BYTES : 0);
    if (run->output_bytes + GRADIENTD_FRAME_HEADER_BYTES + message_bytes > limit)
        return -ENOBUFS;
    uint8_t *frame = run->output + run->output_bytes;
    gd_frame_write_header(frame, (uint32_t)message_bytes, 0);
    gradientd__client_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    run->output_bytes += GRADIENTD_FRAME_HEADER_BYTES + message_bytes;
    return client_flush(run);
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
    *ret_message = gradientd__daemon_message__unpack(NULL, frame.message_bytes, frame.message);
    run->input_bytes -= frame.head_bytes;
    memmove(run->input, run->input + frame.head_bytes, run->input_bytes);
    return *ret_message ? 1 : -EPROTO;
}

// Waits until the socket has something to read. Returns 1, 0 at the deadline, or a negative errno.
static int wait_readable(struct gradientd_run *run, double deadline) {
    for (;;) {
        double left = deadline > 0.0 ? deadline - client_now_monotonic() : 0.0;
        int milliseconds = left <= 0.0 ? 0 : left > 1e6 ? 1000000000 : (int)ceil(left * 1e3);
        struct pollfd poll_socket = {.fd = run->socket,
                                     .events = (short)(POLLIN | (run->output_bytes > 0 ? POLLOUT : 0))};
        int ready = poll(&poll_socket, 1, milliseconds);
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready > 0 && poll_socket.revents & (POLLIN | POLLHUP | POLLERR))
            return 1;
        if (ready > 0 && client_flush(run) < 0)
            return 1; // what the daemon said before it went is still to be read
        if (milliseconds == 0)
            return 0;
    }
}

int client_receive(struct gradientd_run *run, double deadline, Gradientd__DaemonMessage **ret_message) {
    for (;;) {
        int result = take_frame(run, ret_message);
        if (result != 0)
            return result;
        result = wait_readable(run, deadline);
        if (result <= 0)
            return result;
        ssize_t bytes =
            recv(run->socket, run->input + run->input_bytes,
                 GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX - run->input_bytes, MSG_DONTWAIT);
        if (bytes == 0 || (bytes < 0 && errno != EINTR && errno != EAGAIN))
            return -ECONNRESET;
        if (bytes > 0)
            run->input_bytes += (size_t)bytes;
    }
}
