// One direction of a connection that is passed on, over real sockets.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "flow.h"
#include "support.h"

enum { MESSAGE_BYTES = 40, PAYLOAD_BYTES = 300, SHOWN_BYTES_MAX = 1 << 20 };

// What a flow has shown.
struct shown {
    unsigned messages;
    size_t payload_bytes;
    bool shortens; // the first message to half
    int stolen;    // a descriptor, -1: none is taken
    bool steals;
};

static int in[2], out[2]; // what is written to in[0] comes out of out[1]
static struct gd_flow flow;
static struct shown shown;

static void see_message(void *context, struct gd_flow *from, struct gd_frame *frame) {
    struct shown *seen = context;
    if (seen->steals && seen->stolen < 0)
        seen->stolen = gd_flow_steal_fd(from, 1);
    if (seen->shortens && seen->messages == 0) {
        uint8_t half[MESSAGE_BYTES / 2];
        memset(half, 'h', sizeof(half));
        gd_flow_shorten(from, frame, half, sizeof(half));
    }
    seen->messages++;
}

static void see_payload(void *context, const uint8_t *data, size_t bytes) {
    struct shown *seen = context;
    (void)data;
    seen->payload_bytes += bytes;
}

static void set_up(void) {
    static const struct gd_flow_handlers handlers = {see_message, see_payload};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, out), 0);
    shown = (struct shown){.stolen = -1};
    cr_assert_eq(gd_flow_init(&flow, in[1], out[0], &handlers, &shown), 0);
}

static void tear_down(void) {
    gd_flow_deinit(&flow);
    for (int i = 0; i < 2; i++) {
        close(in[i]);
        if (out[i] >= 0)
            close(out[i]);
    }
}

TestSuite(flow, .init = set_up, .fini = tear_down);

// Two frames, the first with a payload. Returns their bytes.
static size_t make_frames(uint8_t *ret_data) {
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        uint32_t payload_bytes = i == 0 ? PAYLOAD_BYTES : 0;
        gd_frame_write_header(ret_data + at, MESSAGE_BYTES, payload_bytes);
        at += GRADIENTD_FRAME_HEADER_BYTES;
        for (uint32_t j = 0; j < MESSAGE_BYTES + payload_bytes; j++)
            ret_data[at++] = (uint8_t)(j * 7 + (uint32_t)i);
    }
    return at;
}

static size_t receive(uint8_t *ret_data, size_t bytes) {
    ssize_t n = recv(out[1], ret_data, bytes, MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

Test(flow, pieces_of_every_size_go_on_as_they_came) {
    uint8_t frames[1024], found[1024];
    size_t bytes = make_frames(frames);
    for (size_t piece = 1; piece <= bytes; piece++) {
        size_t n_found = 0;
        shown = (struct shown){.stolen = -1};
        for (size_t at = 0; at < bytes; at += piece) {
            size_t n = bytes - at < piece ? bytes - at : piece;
            cr_assert_eq(send(in[0], frames + at, n, 0), (ssize_t)n);
            gd_flow_read(&flow);
            gd_flow_write(&flow);
            n_found += receive(found + n_found, sizeof(found) - n_found);
        }
        cr_assert_eq(n_found, bytes);
        cr_assert_eq(memcmp(found, frames, bytes), 0);
        cr_assert(shown.messages == 2 && shown.payload_bytes == PAYLOAD_BYTES);
    }
}

Test(flow, a_message_is_held_until_it_is_whole) {
    uint8_t frames[1024], found[1024];
    make_frames(frames);
    cr_assert_eq(send(in[0], frames, GRADIENTD_FRAME_HEADER_BYTES + MESSAGE_BYTES - 1, 0),
                 GRADIENTD_FRAME_HEADER_BYTES + MESSAGE_BYTES - 1);
    gd_flow_read(&flow);
    cr_assert(!gd_flow_wants_write(&flow) && shown.messages == 0);
    cr_assert_eq(send(in[0], frames + GRADIENTD_FRAME_HEADER_BYTES + MESSAGE_BYTES - 1, 1, 0), 1);
    gd_flow_read(&flow);
    cr_assert(gd_flow_wants_write(&flow) && shown.messages == 1);
    gd_flow_write(&flow);
    cr_assert_eq(receive(found, sizeof(found)), GRADIENTD_FRAME_HEADER_BYTES + MESSAGE_BYTES);
}

Test(flow, a_shortened_message_leaves_what_follows_as_it_was) {
    uint8_t frames[1024], found[1024];
    size_t bytes = make_frames(frames);
    shown.shortens = true;
    cr_assert_eq(send(in[0], frames, bytes, 0), (ssize_t)bytes);
    gd_flow_read(&flow);
    gd_flow_write(&flow);
    size_t n_found = receive(found, sizeof(found)), head = GRADIENTD_FRAME_HEADER_BYTES + MESSAGE_BYTES / 2;
    cr_assert_eq(n_found, bytes - MESSAGE_BYTES / 2);
    struct gd_frame frame;
    struct gd_error error;
    cr_assert_eq(gd_frame_parse(found, n_found, &frame, &error), GD_FRAME_COMPLETE);
    cr_assert(frame.message_bytes == MESSAGE_BYTES / 2 && frame.payload_bytes == PAYLOAD_BYTES);
    cr_assert(frame.message[0] == 'h' && frame.message[MESSAGE_BYTES / 2 - 1] == 'h');
    size_t tail = n_found - head;
    cr_assert_eq(memcmp(found + head, frames + bytes - tail, tail), 0);
}

// Sends bytes with so many descriptors, of /dev/null.
static void send_with_fds(const uint8_t *data, size_t bytes, int n_fds) {
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr header;
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    int fds[4];
    for (int i = 0; i < n_fds; i++)
        cr_assert_geq(fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
    control.header.cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
    memcpy(CMSG_DATA(&control.header), fds, (size_t)n_fds * sizeof(int));
    union {
        const uint8_t *borrowed;
        void *base;
    } pointer = {.borrowed = data};
    struct iovec vector = {pointer.base, bytes};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int))};
    cr_assert_eq(sendmsg(in[0], &header, 0), (ssize_t)bytes);
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
}

// One recvmsg; closes what came as descriptors, and returns their number.
static size_t receive_fds(size_t *ret_bytes) {
    uint8_t data[1024];
    char control[CMSG_SPACE(8 * sizeof(int))];
    struct iovec vector = {data, sizeof(data)};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control)};
    ssize_t bytes = recvmsg(out[1], &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    *ret_bytes = bytes > 0 ? (size_t)bytes : 0;
    struct cmsghdr *first = bytes > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    size_t n_fds = first ? (first->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    for (size_t i = 0; i < n_fds; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(first) + i * sizeof(int), sizeof(int));
        close(fd);
    }
    return n_fds;
}

Test(flow, descriptors_go_on_with_the_message_they_came_with) {
    enum { FIRST_BYTES = GRADIENTD_FRAME_HEADER_BYTES + MESSAGE_BYTES + PAYLOAD_BYTES };
    uint8_t frames[1024];
    size_t bytes = make_frames(frames), n_bytes;
    int before = count_fds();
    cr_assert_eq(send(in[0], frames, FIRST_BYTES, 0), FIRST_BYTES);
    gd_flow_read(&flow); // what has not gone on yet when they come
    send_with_fds(frames + FIRST_BYTES, bytes - FIRST_BYTES, 3);
    gd_flow_read(&flow);
    cr_assert_eq(flow.fds_at, FIRST_BYTES);
    gd_flow_write(&flow);
    cr_assert_eq(recv(out[1], frames, FIRST_BYTES, 0), FIRST_BYTES); // else the kernel hands out both at once
    cr_assert_eq(receive_fds(&n_bytes), 3);
    cr_assert_eq(n_bytes, bytes - FIRST_BYTES);
    cr_assert_eq(count_fds(), before);
}

Test(flow, a_stolen_descriptor_does_not_go_on) {
    uint8_t frames[1024];
    size_t bytes = make_frames(frames), n_bytes;
    int before = count_fds();
    shown.steals = true;
    send_with_fds(frames, bytes, 3);
    gd_flow_read(&flow);
    cr_assert_geq(shown.stolen, 0);
    gd_flow_write(&flow);
    cr_assert_eq(receive_fds(&n_bytes), 2);
    close(shown.stolen);
    cr_assert_eq(count_fds(), before);
}

Test(flow, what_nobody_takes_is_closed) {
    uint8_t frames[1024];
    make_frames(frames);
    int before = count_fds();
    send_with_fds(frames, 5, 3); // of a message that never comes
    gd_flow_read(&flow);
    cr_assert_neq(count_fds(), before);
    gd_flow_deinit(&flow);
    cr_assert_eq(count_fds(), before);
}

Test(flow, what_cannot_go_on_is_dropped) {
    uint8_t frames[1024];
    size_t bytes = make_frames(frames);
    close(out[1]);
    out[1] = -1;
    int before = count_fds();
    send_with_fds(frames, bytes, 2);
    gd_flow_read(&flow);
    gd_flow_write(&flow);
    cr_assert(flow.broken && !gd_flow_wants_write(&flow));
    send_with_fds(frames, bytes, 2);
    gd_flow_read(&flow);
    cr_assert(!gd_flow_wants_write(&flow) && shown.messages == 4);
    cr_assert_eq(count_fds(), before);
}

Test(flow, what_is_no_frame_goes_on_unseen) {
    uint8_t noise[1024], found[1024];
    memset(noise, 0xff, sizeof(noise)); // a message of 4 GiB
    cr_assert_eq(send(in[0], noise, sizeof(noise), 0), (ssize_t)sizeof(noise));
    gd_flow_read(&flow);
    gd_flow_write(&flow);
    cr_assert_eq(receive(found, sizeof(found)), sizeof(noise));
    cr_assert(memcmp(found, noise, sizeof(noise)) == 0 && shown.messages == 0);
}

Test(flow, a_drain_takes_what_has_arrived_and_no_more) {
    uint8_t frames[1024];
    size_t bytes = make_frames(frames);
    cr_assert_eq(send(in[0], frames, bytes, 0), (ssize_t)bytes);
    gd_flow_drain(&flow);
    cr_assert_eq(send(in[0], frames, bytes, 0), (ssize_t)bytes); // as a forked child would
    while (gd_flow_wants_read(&flow))
        gd_flow_read(&flow);
    cr_assert_eq(flow.state, GD_FLOW_ENDED);
    cr_assert_eq(shown.messages, 2);
    cr_assert_eq(flow.ready, bytes);
}

Test(flow, a_slow_reader_stops_the_sender) {
    uint8_t *data = calloc(1, SHOWN_BYTES_MAX);
    size_t sent = 0, received = 0;
    gd_frame_write_header(data, 0, 64 << 20);
    int flags = fcntl(in[0], F_SETFL, O_NONBLOCK);
    cr_assert_eq(flags, 0);
    for (;;) { // until nothing moves any more
        ssize_t n = send(in[0], data + (sent == 0 ? 0 : GRADIENTD_FRAME_HEADER_BYTES),
                         SHOWN_BYTES_MAX - GRADIENTD_FRAME_HEADER_BYTES, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        if (n < 0 && !gd_flow_wants_read(&flow))
            break;
        if (gd_flow_wants_read(&flow))
            gd_flow_read(&flow);
        gd_flow_write(&flow);
    }
    cr_assert_lt(sent, 4 << 20);
    while (received < sent) {
        received += receive(data, SHOWN_BYTES_MAX);
        gd_flow_write(&flow);
        if (gd_flow_wants_read(&flow))
            gd_flow_read(&flow);
    }
    cr_assert_eq(received, sent);
    free(data);
}
