// Descriptors that came from a client and were not taken.
#pragma once

// Closes `fd` on a thread of its own: on a hung file system close() may never return, and the caller is the loop. -1 is
// allowed.
void gd_foreign_fd_close(int fd);
