#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

void client_print_warning(const char *line) {
    struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
    sigset_t broken_pipe, mask, pending;

    if (poll(&standard_error, 1, 0) != 1 || !(standard_error.revents & POLLOUT))
        return;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, &mask);
    ssize_t written = write(STDERR_FILENO, line, strlen(line));
    if (written < 0 && errno == EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&broken_pipe, NULL, &(struct timespec){0}); // takes back the one just raised
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}
