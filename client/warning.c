#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

void client_print_warning(const char *line) {
    struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
    struct client_held_signals held;

    if (poll(&standard_error, 1, 0) != 1 || !(standard_error.revents & POLLOUT))
        return;
    client_hold_signals(&held);
    ssize_t written = write(STDERR_FILENO, line, strlen(line));
    (void)written; // there is no other place to say it
    client_release_signals(&held);
}
