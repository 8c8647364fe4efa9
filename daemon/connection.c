#include "connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fd_queue.h"
#include "gradientd/protocol.h"

enum {
    INPUT_BYTES_MIN = 64 << 10, // a burst of hundreds of Snapshots, or a piece of a payload that stays in L2
    OUTPUT_BYTES_MAX = 1 << 20,
    ROOM_UNASKED = 16, // messages after the kernel said that there is room: 12 KiB of a socket's 208, as it counts them
};

enum phase {
    READING,
    DRAINING, // reads until `drain_end`
    DRAINED,  // reads no more, still sends
    CLOSING,
};

struct gd_connection {
    uv_poll_t poll;
    int fd;
    enum phase phase;
    struct gd_connection_handlers handlers;
    void *context;
    struct gd_fd_queue fds;
    bool paused;
    bool asks_room;
    uint32_t room_left; // calls of `room` before the kernel is asked again
    int polled_events;  // what the poll waits for
    bool handling;      // a handler is being called: what it unpauses goes on when it returns

    uint8_t *input;
    size_t input_capacity;
    size_t input_bytes;
    uint64_t payload_left;   // of the frame whose message was handled last
    uint64_t received_bytes; // ever
    uint64_t drain_end;      // received_bytes once all is read
    uint8_t *output;
    size_t output_bytes;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static bool reads(const struct gd_connection *connection) {
    return !connection->paused && connection->phase < DRAINED;
}

static void update_poll(struct gd_connection *connection) {
    bool writes = connection->output_bytes > 0 || connection->asks_room;
    int events = (reads(connection) ? UV_READABLE : 0) | (writes ? UV_WRITABLE : 0);
    if (events == connection->polled_events)
        return; // libuv would take it from epoll and add it again
    connection->polled_events = events;
    if (events)
        uv_poll_start(&connection->poll, events, on_poll);
    else
        uv_poll_stop(&connection->poll);
}

int gd_connection_new_consume(uv_loop_t *loop, int fd, const struct gd_connection_handlers *handlers, void *context,
                              struct gd_connection **ret_connection) {
    struct gd_connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return -ENOMEM;
    *connection =
        (struct gd_connection){.fd = fd, .handlers = *handlers, .context = context, .input_capacity = INPUT_BYTES_MIN};
    connection->input = malloc(INPUT_BYTES_MIN);
    int result = connection->input ? uv_poll_init(loop, &connection->poll, fd) : -ENOMEM;
    if (result < 0) {
        free(connection->input);
        free(connection);
        return result;
    }
    update_poll(connection);
    *ret_connection = connection;
    return 0;
}

struct ucred gd_connection_peer(int fd) {
    struct ucred peer = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t bytes = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return (struct ucred){.uid = (uid_t)-1, .gid = (gid_t)-1};
    return peer;
}

int gd_connection_fd(const struct gd_connection *connection) {
    return connection->fd;
}

int gd_connection_steal_fd(struct gd_connection *connection, struct gd_charge *charge) {
    return gd_fd_queue_steal(&connection->fds, charge);
}

static void break_off(struct gd_connection *connection, const char *field, const char *text) {
    struct gd_error error;
    gd_error_set(&error, GD_ERROR_PROTOCOL, field, "%s", text);
    connection->handlers.broken(connection->context, &error);
}

// Makes room for a frame's message.
static bool reserve(struct gd_connection *connection, size_t bytes) {
    if (bytes <= connection->input_capacity)
        return true;
    uint8_t *input = realloc(connection->input, bytes);
    if (!input)
        return false;
    connection->input = input;
    connection->input_capacity = bytes;
    return true;
}

// Handles a message at the start of `data`. Returns the bytes it took, 0 when it is not all there or nothing more can
// be handled.
static size_t handle_message(struct gd_connection *connection, const uint8_t *data, size_t bytes) {
    struct gd_frame frame;
    struct gd_error error;
    int result = gd_frame_parse(data, bytes, &frame, &error);

    if (result < 0)
        connection->handlers.broken(connection->context, &error);
    if (result != GD_FRAME_COMPLETE)
        return 0;
    connection->payload_left = frame.payload_bytes;
    connection->handlers.message(connection->context, &frame);
    return frame.head_bytes;
}

static size_t handle_payload(struct gd_connection *connection, const uint8_t *data, size_t bytes) {
    size_t piece = bytes < connection->payload_left ? bytes : (size_t)connection->payload_left;
    connection->payload_left -= piece;
    connection->handlers.payload(connection->context, data, piece);
    return piece;
}

// Handles what the input holds; leaves the start of the next message, or all while paused.
static void handle_input(struct gd_connection *connection) {
    size_t at = 0;

    connection->handling = true;
    while (connection->phase != CLOSING && !connection->paused && at < connection->input_bytes) {
        const uint8_t *data = connection->input + at;
        size_t bytes = connection->input_bytes - at;
        size_t taken = connection->payload_left > 0 ? handle_payload(connection, data, bytes)
                                                    : handle_message(connection, data, bytes);
        if (taken == 0)
            break;
        at += taken;
    }
    connection->handling = false;
    memmove(connection->input, connection->input + at, connection->input_bytes - at);
    connection->input_bytes -= at;
    if (connection->phase == CLOSING || connection->paused)
        return;

    struct gd_frame next;
    struct gd_error error;
    if (connection->payload_left == 0 &&
        gd_frame_parse(connection->input, connection->input_bytes, &next, &error) == GD_FRAME_INCOMPLETE &&
        !reserve(connection, next.head_bytes))
        break_off(connection, "message_bytes", "out of memory for a message of this size");
    else if (connection->input_bytes == 0 && connection->fds.used > 0)
        break_off(connection, "fds", "a descriptor came that no message declares");
}

// Ends the drain once there is nothing left to wait for.
static void check_drained(struct gd_connection *connection) {
    if (connection->phase != DRAINING || connection->paused || connection->handling ||
        connection->received_bytes < connection->drain_end)
        return;
    connection->phase = DRAINED;
    update_poll(connection);
    connection->handlers.drained(connection->context);
}

static int take_fds(struct gd_connection *connection, struct msghdr *header, struct gd_charge *charge) {
    int result = header->msg_flags & MSG_CTRUNC ? -ENOBUFS : 0;
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n_fds = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n_fds; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
            if (gd_fd_queue_push_consume(&connection->fds, fd, charge) < 0)
                result = -ENOBUFS;
        }
    }
    return result;
}

// One recvmsg, and what comes of it. Descriptors that nobody pays for stay outside: the kernel drops them. (It would
// fill the padding of CMSG_SPACE with one more.)
static void receive(struct gd_connection *connection) {
    union {
        char bytes[CMSG_SPACE(GRADIENTD_FDS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control;
    struct gd_charge charge = {0};
    struct gd_error refusal;
    int charged = connection->handlers.charge_fds(connection->context, &charge, &refusal);
    struct iovec vector = {connection->input + connection->input_bytes,
                           connection->input_capacity - connection->input_bytes};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = charged == 0 ? CMSG_LEN(GRADIENTD_FDS_MAX * sizeof(int)) : 0};

    ssize_t bytes = recvmsg(connection->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    int failure = errno;
    int taken = bytes > 0 ? take_fds(connection, &header, &charge) : 0;
    gd_charge_release(&charge);
    if (bytes < 0 && (failure == EAGAIN || failure == EINTR))
        return;
    if (bytes <= 0) {
        gd_connection_close(connection);
        return;
    }
    if (taken < 0) {
        if (charged == -EBADMSG)
            connection->handlers.broken(connection->context, &refusal);
        else
            break_off(connection, "fds", "more descriptors came than any message declares");
        return;
    }
    connection->input_bytes += (size_t)bytes;
    connection->received_bytes += (uint64_t)bytes;
    handle_input(connection);
    check_drained(connection);
}

void gd_connection_drain(struct gd_connection *connection) {
    int arrived = 0; // what comes from now on is another one's, such as a forked child's
    if (connection->phase != READING)
        return;
    ioctl(connection->fd, SIOCINQ, &arrived);
    connection->phase = DRAINING;
    connection->drain_end = connection->received_bytes + (uint64_t)arrived;
    check_drained(connection);
}

static void flush(struct gd_connection *connection) {
    while (connection->output_bytes > 0) {
        ssize_t sent = send(connection->fd, connection->output, connection->output_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM)
                connection->output_bytes = 0; // nobody will read it; reading tells that the peer is gone
            return;
        }
        connection->output_bytes -= (size_t)sent;
        memmove(connection->output, connection->output + sent, connection->output_bytes);
    }
}

// Returns false where there is no room or no memory for it.
static bool queue_message(struct gd_connection *connection, const Gradientd__DaemonMessage *message) {
    size_t message_bytes = gradientd__daemon_message__get_packed_size(message);
    size_t total = connection->output_bytes + GRADIENTD_FRAME_HEADER_BYTES + message_bytes;

    uint8_t *output = total <= OUTPUT_BYTES_MAX ? realloc(connection->output, total) : NULL;
    if (!output)
        return false;
    connection->output = output;
    gd_frame_write_header(output + connection->output_bytes, (uint32_t)message_bytes, 0);
    gradientd__daemon_message__pack(message, output + connection->output_bytes + GRADIENTD_FRAME_HEADER_BYTES);
    connection->output_bytes = total;
    flush(connection);
    update_poll(connection);
    return true;
}

void gd_connection_send(struct gd_connection *connection, const Gradientd__DaemonMessage *message) {
    if (connection->phase != CLOSING && !queue_message(connection, message))
        gd_connection_close(connection);
}

bool gd_connection_offer(struct gd_connection *connection, const Gradientd__DaemonMessage *message) {
    struct pollfd socket = {.fd = connection->fd, .events = POLLOUT};
    if (connection->phase == CLOSING || connection->output_bytes > 0)
        return false;
    return poll(&socket, 1, 0) == 1 && socket.revents == POLLOUT && queue_message(connection, message);
}

// Calls `room` if it was asked for, and there is some.
static void offer_room(struct gd_connection *connection) {
    if (!connection->asks_room || connection->output_bytes > 0 || connection->room_left == 0)
        return;
    connection->room_left--;
    connection->asks_room = false;
    connection->handlers.room(connection->context);
}

void gd_connection_ask_room(struct gd_connection *connection) {
    if (connection->phase == CLOSING)
        return;
    connection->asks_room = true;
    if (connection->handling) // when all that has come is handled, once for all of it
        return;
    offer_room(connection);
    if (connection->phase != CLOSING)
        update_poll(connection);
}

void gd_connection_set_paused(struct gd_connection *connection, bool paused) {
    if (connection->phase == CLOSING || connection->paused == paused)
        return;
    connection->paused = paused;
    if (!paused && !connection->handling) {
        handle_input(connection);
        check_drained(connection);
    }
    if (connection->phase != CLOSING)
        update_poll(connection);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct gd_connection *connection = (struct gd_connection *)poll;
    if (status < 0) { // the peer is gone, perhaps with bytes of ours unread: what it sent before is still to be read
        connection->polled_events = 0; // libuv has stopped the poll
        events = reads(connection) ? UV_READABLE : UV_WRITABLE;
    }
    if (events & UV_WRITABLE) {
        flush(connection);
        connection->room_left = ROOM_UNASKED;
    }
    if (events & UV_READABLE && connection->phase != CLOSING)
        receive(connection);
    if (connection->phase != CLOSING)
        offer_room(connection);
    if (connection->phase != CLOSING)
        update_poll(connection);
}

static void on_poll_closed(uv_handle_t *handle) {
    struct gd_connection *connection = (struct gd_connection *)handle;
    gd_fd_queue_deinit(&connection->fds);
    close(connection->fd);
    connection->handlers.closed(connection->context);
    free(connection->input);
    free(connection->output);
    free(connection);
}

void gd_connection_close(struct gd_connection *connection) {
    if (connection->phase == CLOSING)
        return;
    connection->phase = CLOSING;
    flush(connection);
    uv_close((uv_handle_t *)&connection->poll, on_poll_closed);
}
