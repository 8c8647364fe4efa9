// What systemd and the daemon tell each other. Built without libsystemd (meson option `systemd`) the daemon tells
// nothing, and says so where it is passed a socket.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

// The one socket that systemd passed (socket activation), now the caller's. Returns 1 and *ret_fd, 0 where none was
// passed, or a negative errno with *ret_error set. Call it once, before there are threads.
__attribute__((warn_unused_result)) int gd_systemd_listen_fd(int *ret_fd, struct gd_error *ret_error);

// Whether a manager listens to gd_systemd_notify().
bool gd_systemd_listens(void);

// After how many microseconds without WATCHDOG=1 the manager ends this process; 0: it does not, or does not listen.
uint64_t gd_systemd_watchdog_us(void);

// Lines of VARIABLE=value for the service manager, as sd_notify(3) takes them; nothing where no manager listens.
void gd_systemd_notify(const char *lines);
