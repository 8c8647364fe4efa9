#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "stress.h"

enum {
    ANSWER_BYTES_MAX = GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX,
    PAUSE_NS = 2000000, // half of the requests that a user may send
};

static int receive(int fd, uint8_t *frame) {
    uint32_t bytes;
    if (recv(fd, frame, GRADIENTD_FRAME_HEADER_BYTES, MSG_WAITALL) != GRADIENTD_FRAME_HEADER_BYTES)
        return stress_fail("the daemon answers no StatusRequest any more");
    memcpy(&bytes, frame, sizeof(bytes));
    if (bytes > GRADIENTD_MESSAGE_BYTES_MAX || recv(fd, frame, bytes, MSG_WAITALL) != (ssize_t)bytes)
        return stress_fail("an answer of %u bytes does not end", bytes);
    return 0;
}

static int ask(int fd, const uint8_t *request, size_t bytes, uint8_t *answer) {
    if (send(fd, request, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
        return stress_fail("the daemon takes no StatusRequest any more");
    return receive(fd, answer);
}

int stress_watch(const struct stress_place *place, const _Atomic bool *ending) {
    static const uint8_t hello[] = {4, 0, 0, 0, 0, 0, 0, 0, 0x0a, 2, 0x08, GRADIENTD_PROTOCOL_VERSION};
    static const uint8_t status_request[] = {4, 0, 0, 0, 0, 0, 0, 0, 0x3a, 2, 0x10, 0}; // with all alerts
    static const struct timespec pause = {.tv_nsec = PAUSE_NS};
    static uint8_t answer[ANSWER_BYTES_MAX];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.*s", (int)sizeof(address.sun_path) - 1, place->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result =
        fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? stress_fail("no watcher") : 0;
    if (result == 0)
        result = ask(fd, hello, sizeof(hello), answer);
    while (result == 0 && !*ending) {
        result = ask(fd, status_request, sizeof(status_request), answer);
        nanosleep(&pause, NULL);
    }
    close(fd);
    return result;
}
