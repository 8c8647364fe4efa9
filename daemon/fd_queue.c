#include "fd_queue.h"

#include <errno.h>
#include <string.h>

#include "foreign_fd.h"

int gd_fd_queue_push_consume(struct gd_fd_queue *queue, int fd, struct gd_charge *charge) {
    if (queue->used == GRADIENTD_FDS_MAX) {
        gd_foreign_fd_close(fd, charge);
        return -ENOBUFS;
    }
    gd_charge_move(charge, 1, &queue->charge);
    queue->fds[queue->used++] = fd;
    return 0;
}

int gd_fd_queue_steal(struct gd_fd_queue *queue, struct gd_charge *charge) {
    if (queue->used == 0)
        return -1;
    int fd = queue->fds[0];
    gd_charge_move(&queue->charge, 1, charge);
    queue->used--;
    memmove(queue->fds, queue->fds + 1, queue->used * sizeof(queue->fds[0]));
    return fd;
}

void gd_fd_queue_deinit(struct gd_fd_queue *queue) {
    while (queue->used > 0)
        gd_foreign_fd_close(queue->fds[--queue->used], &queue->charge);
}
