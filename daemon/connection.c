#include "connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fd_queue.h"
#include "gradientd/protocol.h"

enum {
    INPUT_BYTES_MIN = 16 << 10, // holds hundreds of Snapshots: one recvmsg takes a burst
    OUTPUT_BYTES_MAX = 1 << 20,
};

struct gd_connection {
    uv_poll_t poll;
    int fd;
    struct gd_connection_handlers handlers;
    void *context;
    struct gd_fd_queue fds;
    bool paused;
    bool closing;

    uint8_t *input;
    size_t input_capacity;
    size_t input_bytes;
    uint64_t received_bytes; // ever
    uint8_t *output;
    size_t output_bytes;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static void update_poll(struct gd_connection *connection) {
    int events = (connection->paused ? 0 : UV_READABLE) | (connection->output_bytes ? UV_WRITABLE : 0);
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

struct ucred gd_connection_peer(const struct gd_connection *connection) {
    struct ucred peer = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t bytes = sizeof(peer);
    if (getsockopt(connection->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0)
        return (struct ucred){.uid = (uid_t)-1, .gid = (gid_t)-1};
    return peer;
}

int gd_connection_steal_fd(struct gd_connection *connection) {
    return gd_fd_queue_steal(&connection->fds);
}

static void break_off(struct gd_connection *connection, const char *field, const char *text) {
    struct gd_error error;
    gd_error_set(&error, GD_ERROR_PROTOCOL, field, "%s", text);
    connection->handlers.broken(connection->context, &error);
}

// Handles every whole frame in the input; leaves the start of the next one.
static void handle_frames(struct gd_connection *connection) {
    size_t at = 0;
    while (!connection->closing) {
        struct gd_frame frame;
        struct gd_error error;
        int result = gd_frame_parse(connection->input + at, connection->input_bytes - at, &frame, &error);
        if (result < 0) {
            connection->handlers.broken(connection->context, &error);
            return;
        }
        if (result == GD_FRAME_INCOMPLETE) {
            memmove(connection->input, connection->input + at, connection->input_bytes - at);
            connection->input_bytes -= at;
            if (frame.total_bytes > connection->input_capacity) {
                uint8_t *input = realloc(connection->input, frame.total_bytes);
                if (!input) {
                    break_off(connection, "payload_bytes", "out of memory for a frame of this size");
                    return;
                }
                connection->input = input;
                connection->input_capacity = frame.total_bytes;
            }
            break;
        }
        connection->handlers.frame(connection->context, &frame);
        at += frame.total_bytes;
    }
    if (!connection->closing && connection->input_bytes == 0 && connection->fds.used > 0)
        break_off(connection, "fds", "a descriptor came that no message declares");
}

static int take_fds(struct gd_connection *connection, struct msghdr *header) {
    int result = header->msg_flags & MSG_CTRUNC ? -ENOBUFS : 0;
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n_fds = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n_fds; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
            if (gd_fd_queue_push_consume(&connection->fds, fd) < 0)
                result = -ENOBUFS;
        }
    }
    return result;
}

// One recvmsg. Returns true when there may be more.
static bool receive(struct gd_connection *connection) {
    union {
        char bytes[CMSG_SPACE(GRADIENTD_FDS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control;
    struct iovec vector = {connection->input + connection->input_bytes,
                           connection->input_capacity - connection->input_bytes};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};

    ssize_t bytes = recvmsg(connection->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return errno == EINTR;
    if (bytes <= 0) {
        gd_connection_close(connection);
        return false;
    }
    if (take_fds(connection, &header) < 0) {
        break_off(connection, "fds", "more descriptors came than any message declares");
        return false;
    }
    connection->input_bytes += (size_t)bytes;
    connection->received_bytes += (uint64_t)bytes;
    handle_frames(connection);
    return true;
}

void gd_connection_drain(struct gd_connection *connection) {
    int arrived = 0; // what comes while this reads is another one's, such as a forked child's
    ioctl(connection->fd, SIOCINQ, &arrived);
    for (uint64_t end = connection->received_bytes + (uint64_t)arrived;
         !connection->closing && connection->received_bytes < end;)
        if (!receive(connection))
            break;
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

void gd_connection_send(struct gd_connection *connection, const Gradientd__DaemonMessage *message) {
    size_t message_bytes = gradientd__daemon_message__get_packed_size(message);
    size_t total = connection->output_bytes + GRADIENTD_FRAME_HEADER_BYTES + message_bytes;

    if (connection->closing)
        return;
    uint8_t *output = total <= OUTPUT_BYTES_MAX ? realloc(connection->output, total) : NULL;
    if (!output) {
        gd_connection_close(connection);
        return;
    }
    connection->output = output;
    gd_frame_write_header(output + connection->output_bytes, (uint32_t)message_bytes, 0);
    gradientd__daemon_message__pack(message, output + connection->output_bytes + GRADIENTD_FRAME_HEADER_BYTES);
    connection->output_bytes = total;
    flush(connection);
    update_poll(connection);
}

void gd_connection_set_paused(struct gd_connection *connection, bool paused) {
    if (connection->closing || connection->paused == paused)
        return;
    connection->paused = paused;
    update_poll(connection);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct gd_connection *connection = (struct gd_connection *)poll;
    if (status < 0) { // the peer is gone, perhaps with bytes of ours unread: what it sent before is still to be read
        gd_connection_drain(connection);
        gd_connection_close(connection);
        return;
    }
    if (events & UV_WRITABLE)
        flush(connection);
    if (events & UV_READABLE)
        receive(connection);
    if (!connection->closing)
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
    if (connection->closing)
        return;
    connection->closing = true;
    flush(connection);
    uv_close((uv_handle_t *)&connection->poll, on_poll_closed);
}
