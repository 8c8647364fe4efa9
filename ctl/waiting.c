#include "waiting.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

enum { MS_PER_SECOND = 1000, NS_PER_MS = 1000000 };

int gd_wait_plain(void *context, int fd, short events, int milliseconds) {
    struct pollfd poll_fd = {.fd = fd, .events = events};
    (void)context;
    int ready = poll(&poll_fd, 1, milliseconds);
    return ready < 0 ? -errno : ready;
}

int gd_wait_while_read(void *context, int fd, short events, int milliseconds) {
    struct pollfd fds[] = {{.fd = fd, .events = events}, {.fd = STDOUT_FILENO}}; // errors come unasked
    (void)context;
    if (poll(fds, 2, milliseconds) < 0)
        return -errno;
    if (fds[1].revents & (POLLERR | POLLHUP))
        return -ECANCELED;
    return fds[0].revents != 0;
}

int gd_wait_pause(const struct gd_waiter *waiter, int64_t until_ms) {
    for (int64_t left_ms; (left_ms = until_ms - gd_now_ms()) > 0;)
        if (waiter->wait(waiter->context, -1, 0, (int)left_ms) == -ECANCELED)
            return -ECANCELED;
    return 0;
}

int64_t gd_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * MS_PER_SECOND + now.tv_nsec / NS_PER_MS;
}
