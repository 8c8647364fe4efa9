// Descriptors received over a socket, first in, first out, until a message takes them. Each has one owner: the queue
// until it is stolen, then the one who stole it.
#pragma once

#include <stdint.h>

#include "gradientd/protocol.h"
#include "quota.h"

struct gd_fd_queue {
    int fds[GRADIENTD_FDS_MAX];
    uint32_t used;
    struct gd_charge charge; // of those that are in the queue
};

// Takes ownership of `fd` and of its part of `charge`. Returns 0, or -ENOBUFS (and closes it) when the queue is full.
__attribute__((warn_unused_result)) int gd_fd_queue_push_consume(struct gd_fd_queue *queue, int fd,
                                                                 struct gd_charge *charge);

// The oldest descriptor, now the caller's as is its part of the charge, in `charge`; -1 when there is none.
int gd_fd_queue_steal(struct gd_fd_queue *queue, struct gd_charge *charge);

// Closes what is left.
void gd_fd_queue_deinit(struct gd_fd_queue *queue);
