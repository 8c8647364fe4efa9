#include "connection.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "foreign_fd.h"
#include "support.h"

static struct gd_quota *quota;
static struct gd_connection *connection;
static bool broken, closed;
static int n_closed; // descriptors

void __real_gd_foreign_fd_close(int fd, struct gd_charge *charge);
void __wrap_gd_foreign_fd_close(int fd, struct gd_charge *charge);

void __wrap_gd_foreign_fd_close(int fd, struct gd_charge *charge) {
    cr_expect_gt(charge->amount, 0, "descriptor %d is nobody's", fd);
    n_closed++;
    __real_gd_foreign_fd_close(fd, charge);
}

static void on_message(void *context, const struct gd_frame *frame) {
    (void)context;
    (void)frame;
}

static void on_payload(void *context, const uint8_t *data, size_t bytes) {
    (void)context;
    (void)data;
    (void)bytes;
}

static int charge_fds(void *context, struct gd_charge *charge, struct gd_error *ret_error) {
    (void)context;
    return gd_quota_charge(quota, geteuid(), GD_QUOTA_FDS, GRADIENTD_FDS_MAX, charge, ret_error);
}

static void on_event(void *context) {
    (void)context;
}

static void on_broken(void *context, const struct gd_error *error) {
    (void)context;
    cr_expect_str_eq(error->field, "fds");
    broken = true;
    gd_connection_close(connection);
}

static void on_closed(void *context) {
    (void)context;
    closed = true;
}

static void send_fds(int socket, size_t n_fds) {
    static const int sent = STDERR_FILENO;
    char control[CMSG_SPACE(8 * sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec vector = {control, 1};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control};
    header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    struct cmsghdr *first = CMSG_FIRSTHDR(&header);
    *first = (struct cmsghdr){CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    for (size_t i = 0; i < n_fds; i++)
        memcpy(CMSG_DATA(first) + i * sizeof(int), &sent, sizeof(int));
    cr_assert_eq(sendmsg(socket, &header, 0), 1);
}

Test(connection, every_descriptor_that_comes_in_is_paid_for) {
    static const struct gd_connection_handlers handlers = {on_message, on_payload, charge_fds, on_event,
                                                           on_event,   on_broken,  on_closed};
    const struct gd_quota_limits limits = {.most = {1, 1, 3, 1}, .messages_per_second = 1};
    uv_loop_t loop;
    cr_assert_eq(uv_loop_init(&loop), 0);
    for (size_t n_fds = 1; n_fds <= 6; n_fds++) {
        int ends[2], before = count_fds();
        broken = closed = false;
        n_closed = 0;
        cr_assert_eq(gd_quota_new(&limits, &quota), 0);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
        cr_assert_eq(gd_connection_new_consume(&loop, ends[0], &handlers, NULL, &connection), 0);
        send_fds(ends[1], n_fds);
        close(ends[1]);
        uv_run(&loop, UV_RUN_DEFAULT);
        cr_expect(closed);
        cr_expect_eq(broken, n_fds > GRADIENTD_FDS_MAX, "%zu descriptors", n_fds);
        cr_expect_eq(n_closed, n_fds < GRADIENTD_FDS_MAX ? (int)n_fds : GRADIENTD_FDS_MAX, "%zu descriptors", n_fds);
        gd_quota_free(quota);
        cr_expect(fds_return_to(before), "%zu descriptors", n_fds);
    }
    uv_loop_close(&loop);
}

// A message as long as an Alert.
static Gradientd__DaemonMessage *alert(void) {
    static char text[400];
    static Gradientd__Alert body;
    static Gradientd__DaemonMessage message;
    memset(text, 'x', sizeof(text) - 1);
    body = (Gradientd__Alert)GRADIENTD__ALERT__INIT;
    body.rule = body.text = text;
    message = (Gradientd__DaemonMessage)GRADIENTD__DAEMON_MESSAGE__INIT;
    message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_ALERT;
    message.alert = &body;
    return &message;
}

Test(connection, what_may_be_lost_leaves_room_for_what_may_not) {
    static const struct gd_connection_handlers handlers = {on_message, on_payload, charge_fds, on_event,
                                                           on_event,   on_broken,  on_closed};
    enum { OFFERED = 10000, SENT = 20 };
    static uint8_t read_bytes[1 << 20];
    uv_loop_t loop;
    int ends[2], sent = 0;
    closed = false;
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    cr_assert_eq(gd_connection_new_consume(&loop, ends[0], &handlers, NULL, &connection), 0);
    for (int i = 0; i < OFFERED; i++)
        sent += gd_connection_offer(connection, alert());
    cr_expect(sent > 10 && sent < 200, "%d were sent", sent);
    for (int i = 0; i < SENT; i++)
        gd_connection_send(connection, alert());
    size_t message_bytes = 8 + gradientd__daemon_message__get_packed_size(alert()), bytes = 0;
    for (ssize_t more; (more = recv(ends[1], read_bytes, sizeof(read_bytes), 0)) > 0;)
        bytes += (size_t)more;
    cr_expect_eq(bytes, (size_t)(sent + SENT) * message_bytes, "%zu bytes", bytes);
    cr_expect(gd_connection_offer(connection, alert()), "it was read, so there is room again");

    gd_connection_close(connection);
    cr_expect_not(gd_connection_offer(connection, alert()), "it is closing");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect(closed);
    close(ends[1]);
    uv_loop_close(&loop);
}
