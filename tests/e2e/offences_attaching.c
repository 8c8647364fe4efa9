#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "offences.h"

static char event_path[256], fifo_path[256];

static int new_event_file(int flags) {
    int fd = open(event_path, flags | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0, "%s: %s", event_path, strerror(errno));
    return fd;
}

// Attach that declares `declared` descriptors and brings `n_fds`, which are closed here.
static void attach_consume(struct raw_client *client, int declared, int *fds, size_t n_fds) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = declared > 0;
    attach.has_event_file = attach.event_file = declared > 1;
    attach.has_pidfd = attach.pidfd = declared > 2;
    raw_client_send_attach(client, &attach, fds, n_fds);
    for (size_t i = 0; i < n_fds; i++)
        close(fds[i]);
}

static int good_memory(const struct raw_client *client) {
    return raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS);
}

OFFENCE(attach_missing) {
    attach_consume(client, 2, (int[]){good_memory(client)}, 1);
}

OFFENCE(attach_missing_all) {
    attach_consume(client, 3, NULL, 0);
}

OFFENCE(attach_missing_pidfd) {
    attach_consume(client, 3, (int[]){good_memory(client), new_event_file(O_WRONLY)}, 2);
}

OFFENCE(attach_surplus) {
    attach_consume(client, 2, (int[]){good_memory(client), new_event_file(O_WRONLY), new_event_file(O_WRONLY)}, 3);
}

// An Attach that declares nothing begins an inline run, but not with this.
OFFENCE(attach_undeclared) {
    attach_consume(client, 0, (int[]){good_memory(client)}, 1);
}

OFFENCE(attach_many) {
    int fds[8];
    for (size_t i = 0; i < 8; i++)
        fds[i] = new_event_file(O_WRONLY);
    attach_consume(client, 3, fds, 8);
}

OFFENCE(attach_four) {
    int fds[4];
    for (size_t i = 0; i < 4; i++)
        fds[i] = new_event_file(O_WRONLY);
    attach_consume(client, 3, fds, 4);
}

OFFENCE(stray_fd) {
    int fd = new_event_file(O_WRONLY);
    static const uint8_t nothing[GRADIENTD_FRAME_HEADER_BYTES + 2] = {2, 0, 0, 0, 0, 0, 0, 0, 7 << 3 | 2, 0};
    raw_client_send_bytes(client, nothing, sizeof(nothing), &fd, 1); // StatusRequest
    close(fd);
}

OFFENCE(stray_fd_of_a_run) {
    static const uint8_t scalars[] = {
        15,     0, 0,      0, 0,          0, 0, 0, 5 << 3 | 2, 13,          // Scalars
        1 << 3, 1, 2 << 3, 1, 3 << 3 | 1, 0, 0, 0, 0,          0,  0, 0, 0, // sequence, step, wall_time
    };
    int fd = new_event_file(O_WRONLY);
    raw_client_send_bytes(client, scalars, sizeof(scalars), &fd, 1);
    close(fd);
}

static void attach_event_file_consume(struct raw_client *client, int event_file) {
    attach_consume(client, 2, (int[]){good_memory(client), event_file}, 2);
}

OFFENCE(event_append) {
    attach_event_file_consume(client, new_event_file(O_WRONLY | O_APPEND));
}

OFFENCE(event_read_only) {
    attach_event_file_consume(client, new_event_file(O_RDONLY));
}

OFFENCE(event_append_both) {
    attach_event_file_consume(client, new_event_file(O_RDWR | O_APPEND));
}

OFFENCE(event_o_path) {
    close(new_event_file(O_WRONLY));
    attach_event_file_consume(client, open(event_path, O_PATH | O_CLOEXEC));
}

OFFENCE(event_device) {
    attach_event_file_consume(client, open("/dev/null", O_WRONLY | O_CLOEXEC));
}

OFFENCE(event_directory) {
    attach_event_file_consume(client, open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

OFFENCE(event_fifo) {
    cr_assert(mkfifo(fifo_path, 0600) == 0 || errno == EEXIST);
    attach_event_file_consume(client, open(fifo_path, O_RDWR | O_CLOEXEC));
}

OFFENCE(event_socket) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    attach_event_file_consume(client, ends[1]);
    close(ends[0]);
}

OFFENCE(event_pidfd) {
    attach_event_file_consume(client, (int)syscall(SYS_pidfd_open, getpid(), 0));
}

OFFENCE(event_pipe) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    attach_event_file_consume(client, ends[1]);
    close(ends[0]);
}

static void attach_pidfd_consume(struct raw_client *client, int pidfd) {
    attach_consume(client, 3, (int[]){good_memory(client), new_event_file(O_WRONLY), pidfd}, 3);
}

OFFENCE(pidfd_file) {
    attach_pidfd_consume(client, new_event_file(O_RDWR));
}

OFFENCE(pidfd_directory) {
    attach_pidfd_consume(client, open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

// One that can be polled, and is readable at once.
OFFENCE(pidfd_device) {
    attach_pidfd_consume(client, open("/dev/zero", O_RDWR | O_CLOEXEC));
}

OFFENCE(pidfd_pipe) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    attach_pidfd_consume(client, ends[0]);
    close(ends[1]);
}

#define OFFENCE_IS(code, function, stage, field, says)                                                                 \
    { #function, stage, function, GRADIENTD__ERROR_CODE__##code, field, says }
#define FDS(function, stage, says) OFFENCE_IS(PROTOCOL, function, stage, "fds", says)
#define EVENT_FILE(function, says) OFFENCE_IS(INVALID, function, RAW_LAID_OUT, "event_file", says)
#define PIDFD(function) OFFENCE_IS(INVALID, function, RAW_LAID_OUT, "pidfd", "pidfd is not a descriptor of a process")

static const struct offence attaching[] = {
    FDS(attach_missing_all, RAW_LAID_OUT, "Attach declares more descriptors than came"),
    FDS(attach_missing, RAW_LAID_OUT, "Attach declares more descriptors than came"),
    FDS(attach_missing_pidfd, RAW_LAID_OUT, "Attach declares more descriptors than came"),
    FDS(attach_surplus, RAW_LAID_OUT, "a descriptor came that no message declares"),
    FDS(attach_undeclared, RAW_LAID_OUT, "a descriptor came that no message declares"),
    FDS(attach_four, RAW_LAID_OUT, "more descriptors came than any message declares"),
    FDS(attach_many, RAW_LAID_OUT, "more descriptors came than any message declares"),
    FDS(stray_fd_of_a_run, RAW_ATTACHED, "a descriptor came that no message declares"),
    OFFENCE_IS(PROTOCOL, stray_fd, RAW_CONNECTED, "message", "StatusRequest came out of order"),

    EVENT_FILE(event_append, "event_file is open with O_APPEND"),
    EVENT_FILE(event_append_both, "event_file is open with O_APPEND"),
    EVENT_FILE(event_read_only, "event_file is not open for writing"),
    EVENT_FILE(event_o_path, "event_file is not open for writing"),
    EVENT_FILE(event_directory, "event_file is not a regular file"),
    EVENT_FILE(event_device, "event_file is not a regular file"),
    EVENT_FILE(event_fifo, "event_file is not a regular file"),
    EVENT_FILE(event_pipe, "event_file is not a regular file"),
    EVENT_FILE(event_socket, "event_file is not a regular file"),
    EVENT_FILE(event_pidfd, "event_file is not a regular file"),

    PIDFD(pidfd_file),
    PIDFD(pidfd_directory),
    PIDFD(pidfd_device),
    PIDFD(pidfd_pipe),
};

struct offences offences_attaching(const char *directory) {
    snprintf(event_path, sizeof(event_path), "%s/attach.events", directory);
    snprintf(fifo_path, sizeof(fifo_path), "%s/attach.fifo", directory);
    return OFFENCES(attaching);
}
