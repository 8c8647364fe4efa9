// Descriptors that came from a client and can be anything, on a file system that hangs as well.
#pragma once

#include <stdbool.h>

#include "quota.h"

// Closes `fd` on a thread of its own: on a hung file system close() may never return, and the caller is the loop. The
// descriptor's part of `charge` goes along and is released once it is closed. -1 is allowed.
void gd_foreign_fd_close(int fd, struct gd_charge *charge);

// Whether `fd` tells of a process. Asks no file system, which polling it would do.
bool gd_foreign_fd_is_pidfd(int fd);
