#include "flow.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    // The longest message, and a piece of a payload.
    CAPACITY_BYTES = GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX + (64 << 10),
};

int gd_flow_init(struct gd_flow *flow, int from, int to, const struct gd_flow_handlers *handlers, void *context) {
    *flow = (struct gd_flow){.from = from, .to = to, .handlers = handlers, .context = context};
    flow->data = malloc(CAPACITY_BYTES); // of which pages cost memory once they are used
    return flow->data ? 0 : -ENOMEM;
}

static void close_fds(struct gd_flow *flow) {
    for (size_t i = 0; i < flow->n_fds; i++)
        close(flow->fds[i]);
    flow->n_fds = 0;
    flow->fds_go = false;
}

void gd_flow_deinit(struct gd_flow *flow) {
    close_fds(flow);
    free(flow->data);
    flow->data = NULL;
}

bool gd_flow_wants_read(const struct gd_flow *flow) {
    return flow->state != GD_FLOW_ENDED && flow->bytes < CAPACITY_BYTES;
}

bool gd_flow_wants_write(const struct gd_flow *flow) {
    return flow->ready > 0;
}

// What came as descriptors goes on with the next bytes that do.
static void let_go(struct gd_flow *flow, size_t bytes) {
    if (flow->n_fds > 0 && !flow->fds_go) {
        flow->fds_go = true;
        flow->fds_at = flow->ready;
    }
    flow->ready += bytes;
}

// Shows a piece of a payload. Returns its bytes.
static size_t show_payload(struct gd_flow *flow, const uint8_t *data, size_t bytes) {
    size_t piece = bytes < flow->payload_left ? bytes : (size_t)flow->payload_left;
    flow->payload_left -= piece;
    flow->handlers->payload(flow->context, data, piece);
    return piece;
}

// Shows a message that is all there. Returns its bytes, 0: it is not.
static size_t show_message(struct gd_flow *flow, const uint8_t *data, size_t bytes) {
    struct gd_frame frame;
    struct gd_error error;
    int result = gd_frame_parse(data, bytes, &frame, &error);
    flow->opaque = result < 0;
    if (result != GD_FRAME_COMPLETE)
        return 0;
    flow->payload_left = frame.payload_bytes;
    flow->handlers->message(flow->context, flow, &frame);
    return frame.head_bytes;
}

static void show(struct gd_flow *flow) {
    while (flow->ready < flow->bytes && !flow->opaque) {
        const uint8_t *data = flow->data + flow->ready;
        size_t bytes = flow->bytes - flow->ready;
        size_t shown = flow->payload_left > 0 ? show_payload(flow, data, bytes) : show_message(flow, data, bytes);
        if (shown == 0)
            break;
        let_go(flow, shown);
    }
    if (flow->opaque && flow->ready < flow->bytes)
        let_go(flow, flow->bytes - flow->ready);
    if (flow->broken) {
        flow->bytes -= flow->ready;
        memmove(flow->data, flow->data + flow->ready, flow->bytes);
        flow->ready = 0;
        close_fds(flow);
    }
}

static void take_fds(struct gd_flow *flow, struct msghdr *header) {
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n_fds = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n_fds; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
            if (flow->n_fds < GRADIENTD_FDS_MAX)
                flow->fds[flow->n_fds++] = fd;
            else
                close(fd); // more than a message can bring: what declares them will miss them
        }
    }
}

void gd_flow_read(struct gd_flow *flow) {
    union {
        char bytes[CMSG_SPACE(GRADIENTD_FDS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control;
    size_t room = CAPACITY_BYTES - flow->bytes;
    if (flow->state == GD_FLOW_DRAINING && room > flow->left_bytes)
        room = (size_t)flow->left_bytes;
    struct iovec vector = {flow->data + flow->bytes, room};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_LEN(GRADIENTD_FDS_MAX * sizeof(int))};

    ssize_t bytes = recvmsg(flow->from, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (bytes <= 0) {
        flow->state = GD_FLOW_ENDED;
        return;
    }
    take_fds(flow, &header);
    flow->bytes += (size_t)bytes;
    if (flow->state == GD_FLOW_DRAINING) {
        flow->left_bytes -= (uint64_t)bytes;
        flow->state = flow->left_bytes > 0 ? GD_FLOW_DRAINING : GD_FLOW_ENDED;
    }
    show(flow);
}

void gd_flow_drain(struct gd_flow *flow) {
    int arrived = 0; // what comes from now on is another one's, such as a forked child's
    if (flow->state != GD_FLOW_OPEN)
        return;
    ioctl(flow->from, SIOCINQ, &arrived);
    flow->left_bytes = (uint64_t)arrived;
    flow->state = arrived > 0 ? GD_FLOW_DRAINING : GD_FLOW_ENDED;
}

// One sendmsg: up to the byte that descriptors go with, or from it on with them.
static ssize_t send_some(struct gd_flow *flow) {
    union {
        char bytes[CMSG_SPACE(GRADIENTD_FDS_MAX * sizeof(int))];
        struct cmsghdr header;
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    bool with_fds = flow->fds_go && flow->fds_at == 0;
    struct iovec vector = {flow->data, flow->fds_go && !with_fds ? flow->fds_at : flow->ready};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    if (with_fds) {
        control.header.cmsg_len = CMSG_LEN(flow->n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.header), flow->fds, flow->n_fds * sizeof(int));
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(flow->n_fds * sizeof(int));
    }
    ssize_t sent = sendmsg(flow->to, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0 && with_fds)
        close_fds(flow);
    return sent;
}

void gd_flow_write(struct gd_flow *flow) {
    while (flow->ready > 0) {
        ssize_t sent = send_some(flow);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
            return;
        if (sent < 0) {
            flow->broken = true;
            close_fds(flow);
            sent = (ssize_t)flow->ready;
        }
        flow->bytes -= (size_t)sent;
        flow->ready -= (size_t)sent;
        if (flow->fds_go)
            flow->fds_at -= (size_t)sent;
        memmove(flow->data, flow->data + sent, flow->bytes);
    }
}

void gd_flow_shorten(struct gd_flow *flow, struct gd_frame *frame, const uint8_t *message, uint32_t bytes) {
    uint8_t *head = flow->data + flow->ready;
    assert(bytes <= frame->message_bytes);
    uint32_t spare = frame->message_bytes - bytes;
    gd_frame_write_header(head, bytes, frame->payload_bytes);
    memcpy(head + GRADIENTD_FRAME_HEADER_BYTES, message, bytes);
    size_t rest = flow->bytes - flow->ready - frame->head_bytes;
    memmove(head + frame->head_bytes - spare, head + frame->head_bytes, rest);
    flow->bytes -= spare;
    frame->message_bytes = bytes;
    frame->head_bytes -= spare;
}

int gd_flow_steal_fd(struct gd_flow *flow, size_t index) {
    assert(index < flow->n_fds);
    int fd = flow->fds[index];
    memmove(&flow->fds[index], &flow->fds[index + 1], (flow->n_fds - index - 1) * sizeof(int));
    flow->n_fds--;
    return fd;
}
