#include "fd_queue.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "support.h"

static int new_fd(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    return fd;
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

Test(fd_queue, descriptors_leave_in_the_order_they_came) {
    struct gd_fd_queue queue = {0};
    struct gd_charge charge = {0};
    int fds[2 * GRADIENTD_FDS_MAX];
    int stolen = 0;

    // A full queue once, then one in, one out: the order must hold past the end of the array.
    for (int i = 0; i < 2 * GRADIENTD_FDS_MAX; i++) {
        fds[i] = new_fd();
        if (i >= GRADIENTD_FDS_MAX)
            cr_assert_eq(gd_fd_queue_steal(&queue, &charge), fds[stolen++]);
        cr_assert_eq(gd_fd_queue_push_consume(&queue, fds[i], &charge), 0);
    }
    while (stolen < 2 * GRADIENTD_FDS_MAX)
        cr_assert_eq(gd_fd_queue_steal(&queue, &charge), fds[stolen++]);
    cr_assert_eq(gd_fd_queue_steal(&queue, &charge), -1);
}

Test(fd_queue, an_empty_queue_has_nothing_to_steal) {
    struct gd_fd_queue queue = {0};
    struct gd_charge charge = {0};
    cr_assert_eq(gd_fd_queue_steal(&queue, &charge), -1);
    cr_assert_eq(queue.used, 0);
}

Test(fd_queue, a_full_queue_closes_what_it_refuses) {
    struct gd_fd_queue queue = {0};
    struct gd_charge charge = {0};
    for (int i = 0; i < GRADIENTD_FDS_MAX; i++)
        cr_assert_eq(gd_fd_queue_push_consume(&queue, new_fd(), &charge), 0);

    int before = count_fds();
    int refused = new_fd();
    cr_assert_eq(gd_fd_queue_push_consume(&queue, refused, &charge), -ENOBUFS);
    cr_expect(fds_return_to(before));
    cr_expect_not(is_open(refused));
    cr_expect_eq(queue.used, GRADIENTD_FDS_MAX);
    gd_fd_queue_deinit(&queue);
}

Test(fd_queue, deinit_closes_what_is_left_and_nothing_else) {
    for (int left = 0; left <= GRADIENTD_FDS_MAX; left++) {
        struct gd_fd_queue queue = {0};
        struct gd_charge charge = {0};
        int before = count_fds();
        int stolen = -1;

        for (int i = 0; i < GRADIENTD_FDS_MAX; i++)
            cr_assert_eq(gd_fd_queue_push_consume(&queue, new_fd(), &charge), 0);
        for (int i = left; i < GRADIENTD_FDS_MAX; i++) {
            if (stolen >= 0)
                close(stolen);
            stolen = gd_fd_queue_steal(&queue, &charge);
        }
        gd_fd_queue_deinit(&queue);
        if (stolen >= 0) {
            cr_expect(is_open(stolen), "%d left", left);
            close(stolen);
        }
        cr_expect(fds_return_to(before), "%d left", left);
        cr_expect_eq(gd_fd_queue_steal(&queue, &charge), -1);
    }
}

static bool can_charge(struct gd_quota *quota, uint64_t amount) {
    struct gd_charge charge = {0};
    struct gd_error error;
    bool taken = gd_quota_charge(quota, 7, GD_QUOTA_FDS, amount, &charge, &error) == 0;
    gd_charge_release(&charge);
    return taken;
}

Test(fd_queue, a_descriptor_is_paid_for_until_it_is_closed) {
    static const struct gd_quota_limits limits = {.most = {[GD_QUOTA_FDS] = GRADIENTD_FDS_MAX},
                                                  .messages_per_second = 1};
    struct gd_quota *quota;
    struct gd_fd_queue queue = {0};
    struct gd_charge arriving = {0}, taken = {0};
    struct gd_error error;

    cr_assert_eq(gd_quota_new(&limits, &quota), 0);
    cr_assert_eq(gd_quota_charge(quota, 7, GD_QUOTA_FDS, GRADIENTD_FDS_MAX, &arriving, &error), 0);
    for (int i = 0; i < GRADIENTD_FDS_MAX; i++)
        cr_assert_eq(gd_fd_queue_push_consume(&queue, new_fd(), &arriving), 0);
    cr_expect_eq(arriving.amount, 0);
    close(gd_fd_queue_steal(&queue, &taken));
    cr_expect_eq(taken.amount, 1);
    cr_expect_not(can_charge(quota, 1), "a descriptor in the queue is not paid for");
    gd_fd_queue_deinit(&queue);
    bool paid_back = false;
    for (int tries = 0; tries < 20000 && !paid_back; tries++) { // 20 s: they are closed on threads of their own
        paid_back = can_charge(quota, GRADIENTD_FDS_MAX - 1);
        usleep(1000);
    }
    cr_expect(paid_back);
    cr_expect_not(can_charge(quota, GRADIENTD_FDS_MAX), "what was taken is the taker's to give back");
    gd_charge_release(&taken);
    gd_quota_free(quota);
}
