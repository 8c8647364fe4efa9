#include "systemd.h"

#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

int gd_systemd_listen_fd(int *ret_fd, struct gd_error *ret_error) {
    int n_fds = sd_listen_fds(1);
    if (n_fds < 0)
        return gd_error_set(ret_error, GD_ERROR_INTERNAL, "socket", "the socket passed in LISTEN_FDS is not there: %s",
                            strerror(-n_fds));
    if (n_fds > 1)
        return gd_error_set(ret_error, GD_ERROR_INTERNAL, "socket", "LISTEN_FDS is %d, it must be 1 socket", n_fds);
    *ret_fd = SD_LISTEN_FDS_START;
    return n_fds;
}

bool gd_systemd_listens(void) {
    return getenv("NOTIFY_SOCKET");
}

uint64_t gd_systemd_watchdog_us(void) {
    uint64_t us;
    return gd_systemd_listens() && sd_watchdog_enabled(0, &us) > 0 ? us : 0;
}

void gd_systemd_notify(const char *lines) {
    sd_notify(0, lines);
}
