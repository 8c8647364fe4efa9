// Waiting for a socket, for a while, or for whoever reads the output to go away.
#pragma once

#include <stdint.h>

// Waits until `fd` (-1: nothing) has one of poll()'s `events`, at most `milliseconds`. Returns 1, 0 at the end of that
// time or earlier, or a negative errno; -ECANCELED ends whatever waits.
struct gd_waiter {
    int (*wait)(void *context, int fd, short events, int milliseconds);
    void *context;
};

// Waits with poll() alone; its context is not used.
int gd_wait_plain(void *context, int fd, short events, int milliseconds);

// The same, but -ECANCELED when nobody reads standard output any more; its context is not used.
int gd_wait_while_read(void *context, int fd, short events, int milliseconds);

// Waits so long with nothing to wait for. Returns 0, or -ECANCELED.
int gd_wait_pause(const struct gd_waiter *waiter, int64_t until_ms);

// Time that passes evenly, in milliseconds.
int64_t gd_now_ms(void);
