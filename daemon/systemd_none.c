#include <stdlib.h>
#include <unistd.h>

#include "systemd.h"

int gd_systemd_listen_fd(int *ret_fd, struct gd_error *ret_error) {
    const char *n_fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    *ret_fd = -1;
    if (!n_fds || !pid || strtol(pid, NULL, 10) != getpid()) // not set, or meant for the process that started this one
        return 0;
    return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "socket",
                        "LISTEN_FDS is %s, but this gradientd was built without socket activation "
                        "(meson option systemd)",
                        n_fds);
}

bool gd_systemd_listens(void) {
    return false;
}

uint64_t gd_systemd_watchdog_us(void) {
    return 0;
}

void gd_systemd_notify(const char *lines) {
    (void)lines;
}
