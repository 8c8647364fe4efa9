#include "resident.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

uint64_t gd_resident_bytes(void) {
    char text[128];
    char *end;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (bytes <= 0)
        return 0;
    text[bytes] = '\0';
    strtoull(text, &end, 10); // all pages; the next number are those that are there
    return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}
