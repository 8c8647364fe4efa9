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
