#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "offences.h"

enum { GOOD_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

static char event_path[256];

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
    return raw_memory_new(client->total_bytes, GOOD_SEALS);
}

OFFENCE(attach_missing) {
    attach_consume(client, 2, (int[]){good_memory(client)}, 1);
}

OFFENCE(attach_missing_pidfd) {
    attach_consume(client, 3, (int[]){good_memory(client), new_event_file(O_WRONLY)}, 2);
}

OFFENCE(attach_surplus) {
    attach_consume(client, 2, (int[]){good_memory(client), new_event_file(O_WRONLY), new_event_file(O_WRONLY)}, 3);
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

static void attach_event_file_consume(struct raw_client *client, int event_file) {
    attach_consume(client, 2, (int[]){good_memory(client), event_file}, 2);
}

OFFENCE(event_append) {
    attach_event_file_consume(client, new_event_file(O_WRONLY | O_APPEND));
}

OFFENCE(event_read_only) {
    attach_event_file_consume(client, new_event_file(O_RDONLY));
}

OFFENCE(event_o_path) {
    attach_event_file_consume(client, open("/dev/null", O_PATH | O_CLOEXEC));
}

OFFENCE(event_directory) {
    attach_event_file_consume(client, open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

OFFENCE(event_pipe) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    attach_event_file_consume(client, ends[1]);
    close(ends[0]);
}

static void attach_memory_consume(struct raw_client *client, int memory) {
    attach_consume(client, 2, (int[]){memory, new_event_file(O_WRONLY)}, 2);
}

OFFENCE(memory_unsealed) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, 0));
}

OFFENCE(memory_may_shrink) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, F_SEAL_GROW | F_SEAL_SEAL));
}

OFFENCE(memory_write_sealed) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes, GOOD_SEALS | F_SEAL_FUTURE_WRITE));
}

OFFENCE(memory_sparse) {
    int memory = memfd_create("sparse", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(ftruncate(memory, (off_t)client->total_bytes) == 0 && fcntl(memory, F_ADD_SEALS, GOOD_SEALS) == 0);
    attach_memory_consume(client, memory);
}

OFFENCE(memory_short) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes - 4096, GOOD_SEALS));
}

OFFENCE(memory_long) {
    attach_memory_consume(client, raw_memory_new(client->total_bytes + 4096, GOOD_SEALS));
}

OFFENCE(memory_is_a_file) {
    attach_memory_consume(client, new_event_file(O_RDWR));
}

OFFENCE(memory_is_a_pipe) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    attach_memory_consume(client, ends[0]);
    close(ends[1]);
}

OFFENCE(memory_read_only) {
    char path[64];
    int memory = good_memory(client);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
    attach_memory_consume(client, open(path, O_RDONLY | O_CLOEXEC));
    close(memory);
}

OFFENCE(memory_of_another) {
    char text[4096];
    int memory = good_memory(client);
    memset(text, 'x', sizeof(text));
    cr_assert_eq(pwrite(memory, text, sizeof(text), 0), (ssize_t)sizeof(text));
    attach_memory_consume(client, memory);
}

static const struct offence attaching[] = {
    {"attach_missing", RAW_LAID_OUT, attach_missing, GRADIENTD__ERROR_CODE__PROTOCOL, "fds",
     "declares more descriptors than came"},
    {"attach_missing_pidfd", RAW_LAID_OUT, attach_missing_pidfd, GRADIENTD__ERROR_CODE__PROTOCOL, "fds",
     "declares more descriptors than came"},
    {"attach_surplus", RAW_LAID_OUT, attach_surplus, GRADIENTD__ERROR_CODE__PROTOCOL, "fds",
     "a descriptor came that no message declares"},
    {"attach_four", RAW_LAID_OUT, attach_four, GRADIENTD__ERROR_CODE__PROTOCOL, "fds",
     "more descriptors came than any message declares"},
    {"attach_many", RAW_LAID_OUT, attach_many, GRADIENTD__ERROR_CODE__PROTOCOL, "fds",
     "more descriptors came than any message declares"},
    {"stray_fd", RAW_CONNECTED, stray_fd, GRADIENTD__ERROR_CODE__UNSUPPORTED, "message", "StatusRequest"},
    {"event_append", RAW_LAID_OUT, event_append, GRADIENTD__ERROR_CODE__INVALID, "event_file", "O_APPEND"},
    {"event_read_only", RAW_LAID_OUT, event_read_only, GRADIENTD__ERROR_CODE__INVALID, "event_file",
     "not open for writing"},
    {"event_o_path", RAW_LAID_OUT, event_o_path, GRADIENTD__ERROR_CODE__INVALID, "event_file", "not a regular file"},
    {"event_directory", RAW_LAID_OUT, event_directory, GRADIENTD__ERROR_CODE__INVALID, "event_file",
     "not a regular file"},
    {"event_pipe", RAW_LAID_OUT, event_pipe, GRADIENTD__ERROR_CODE__INVALID, "event_file", "not a regular file"},
    {"memory_unsealed", RAW_LAID_OUT, memory_unsealed, GRADIENTD__ERROR_CODE__MEMORY, "memory",
     "SHRINK, GROW and SEAL"},
    {"memory_may_shrink", RAW_LAID_OUT, memory_may_shrink, GRADIENTD__ERROR_CODE__MEMORY, "memory",
     "SHRINK, GROW and SEAL"},
    {"memory_write_sealed", RAW_LAID_OUT, memory_write_sealed, GRADIENTD__ERROR_CODE__MEMORY, "memory",
     "sealed against writing"},
    {"memory_sparse", RAW_LAID_OUT, memory_sparse, GRADIENTD__ERROR_CODE__MEMORY, "memory", "memory has 0 of"},
    {"memory_short", RAW_LAID_OUT, memory_short, GRADIENTD__ERROR_CODE__MEMORY, "memory", "the layout"},
    {"memory_long", RAW_LAID_OUT, memory_long, GRADIENTD__ERROR_CODE__MEMORY, "memory", "the layout"},
    {"memory_is_a_file", RAW_LAID_OUT, memory_is_a_file, GRADIENTD__ERROR_CODE__MEMORY, "memory", "not a memfd"},
    {"memory_is_a_pipe", RAW_LAID_OUT, memory_is_a_pipe, GRADIENTD__ERROR_CODE__MEMORY, "memory", "not a memfd"},
    {"memory_read_only", RAW_LAID_OUT, memory_read_only, GRADIENTD__ERROR_CODE__MEMORY, "memory",
     "not open for reading and writing"},
    {"memory_of_another", RAW_LAID_OUT, memory_of_another, GRADIENTD__ERROR_CODE__MEMORY, "memory",
     "neither zeros nor a header"},
};

struct offences offences_attaching(const char *directory) {
    snprintf(event_path, sizeof(event_path), "%s/attach.events", directory);
    return OFFENCES(attaching);
}
