#include "foreign_fd.h"

#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

static void *close_fd(void *argument) {
    close((int)(intptr_t)argument);
    return NULL;
}

void gd_foreign_fd_close(int fd) {
    pthread_attr_t attributes;
    pthread_t thread;

    if (fd < 0)
        return;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN);
    if (pthread_create(&thread, &attributes, close_fd, (void *)(intptr_t)fd) != 0) // NOLINT: a number, not a pointer
        close(fd);
    pthread_attr_destroy(&attributes);
}
