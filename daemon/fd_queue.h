// Descriptors received over a socket, first in, first out, until a message takes them. Each has one owner: the queue
// until it is stolen, then the one who stole it.
#pragma once

#include <stdint.h>

#include "gradientd/protocol.h"

struct gd_fd_queue {
    int fds[GRADIENTD_FDS_MAX];
    uint32_t used;
};

// Takes ownership of `fd`. Returns 0, or -ENOBUFS (and closes it) when the queue is full.
__attribute__((warn_unused_result)) int gd_fd_queue_push_consume(struct gd_fd_queue *queue, int fd);

// The oldest descriptor, now the caller's; -1 when there is none.
int gd_fd_queue_steal(struct gd_fd_queue *queue);

// Closes what is left.
void gd_fd_queue_deinit(struct gd_fd_queue *queue);
