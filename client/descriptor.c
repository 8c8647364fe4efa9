#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "internal.h"

int client_lift_descriptor(int fd) {
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int failure = errno;
    close(fd);
    errno = failure;
    return lifted;
}
