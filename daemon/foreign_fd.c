#include "foreign_fd.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct closing {
    int fd;
    struct gd_charge charge;
};

static void *close_fd(void *argument) {
    struct closing *closing = argument;
    close(closing->fd);
    gd_charge_release(&closing->charge);
    free(closing);
    return NULL;
}

void gd_foreign_fd_close(int fd, struct gd_charge *charge) {
    pthread_attr_t attributes;
    pthread_t thread;

    if (fd < 0)
        return;
    struct gd_charge part = {0};
    gd_charge_move(charge, 1, &part);
    struct closing *closing = malloc(sizeof(*closing));
    if (!closing) {
        close(fd);
        gd_charge_release(&part);
        return;
    }
    *closing = (struct closing){fd, part};
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN);
    if (pthread_create(&thread, &attributes, close_fd, closing) != 0)
        close_fd(closing);
    pthread_attr_destroy(&attributes);
}

bool gd_foreign_fd_is_pidfd(int fd) {
    // signal 0 is no signal; whatever else is wrong with the process, EBADF says that there is none
    return syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0 || errno != EBADF;
}
