#include "raw_client.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bytes.h"
#include "gradientd/protocol.h"
#include "scratch.h"

enum { SENT_FDS_MAX = 253 }; // the kernel's SCM_MAX_FD

static const double ANSWER_SECONDS = 20.0;

struct raw_client raw_client_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cr_assert_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    struct raw_client client = {.socket = path, .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), .memory_fd = -1};
    cr_assert(connect(client.fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", path, strerror(errno));
    return client;
}

void raw_client_close(struct raw_client *client) {
    close(client->fd);
    client->fd = -1;
    if (client->memory)
        munmap(client->memory, client->total_bytes);
    client->memory = NULL;
    if (client->memory_fd >= 0)
        close(client->memory_fd);
    client->memory_fd = -1;
}

void raw_client_send_bytes(struct raw_client *client, const void *data, size_t bytes, const int *fds, size_t n_fds) {
    union {
        char bytes[CMSG_SPACE(SENT_FDS_MAX * sizeof(int))];
        struct cmsghdr alignment;
    } control = {{0}};
    struct iovec vector = {(void *)(uintptr_t)data, bytes};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};

    cr_assert_leq(n_fds, SENT_FDS_MAX);
    if (n_fds > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *first = CMSG_FIRSTHDR(&header);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(first), fds, n_fds * sizeof(int));
    }
    // a daemon that has refused already closes its end: what it said is still to be read
    ssize_t sent = sendmsg(client->fd, &header, MSG_NOSIGNAL);
    if (sent >= 0 && (size_t)sent < bytes) // it closed while this one waited for room
        sent = send(client->fd, (const uint8_t *)data + sent, bytes - (size_t)sent, MSG_NOSIGNAL);
    cr_assert(sent >= 0 || errno == EPIPE || errno == ECONNRESET, "sendmsg: %s", strerror(errno));
}

static uint8_t *pack_frame(const Gradientd__ClientMessage *message, const void *payload, size_t payload_bytes,
                           size_t *ret_bytes) {
    size_t message_bytes = gradientd__client_message__get_packed_size(message);
    *ret_bytes = GRADIENTD_FRAME_HEADER_BYTES + message_bytes + payload_bytes;
    uint8_t *frame = malloc(*ret_bytes);
    cr_assert(frame);
    gd_write_u32le(frame, (uint32_t)message_bytes);
    gd_write_u32le(frame + 4, (uint32_t)payload_bytes);
    gradientd__client_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    if (payload_bytes > 0)
        memcpy(frame + GRADIENTD_FRAME_HEADER_BYTES + message_bytes, payload, payload_bytes);
    return frame;
}

static void send_frame(struct raw_client *client, const Gradientd__ClientMessage *message, const void *payload,
                       size_t payload_bytes, const int *fds, size_t n_fds) {
    size_t bytes;
    uint8_t *frame = pack_frame(message, payload, payload_bytes, &bytes);
    raw_client_send_bytes(client, frame, bytes, fds, n_fds);
    free(frame);
}

void raw_client_send(struct raw_client *client, const Gradientd__ClientMessage *message, const void *payload,
                     size_t payload_bytes) {
    send_frame(client, message, payload, payload_bytes, NULL, 0);
}

// Reads exactly `bytes`; false when the connection ends before the first of them.
static bool read_exactly(struct raw_client *client, uint8_t *data, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        cr_assert(scratch_wait_readable(client->fd, ANSWER_SECONDS), "the daemon does not answer");
        ssize_t got = recv(client->fd, data + at, bytes - at, 0);
        if (got <= 0) { // it closes with our bytes unread: ECONNRESET
            cr_assert(got == 0 || errno == ECONNRESET, "recv: %s", strerror(errno));
            cr_assert_eq(at, 0, "the connection ends inside a frame");
            return false;
        }
        at += (size_t)got;
    }
    return true;
}

Gradientd__DaemonMessage *raw_client_receive_any(struct raw_client *client) {
    uint8_t header[GRADIENTD_FRAME_HEADER_BYTES];
    if (!read_exactly(client, header, sizeof(header)))
        return NULL;
    uint32_t message_bytes = gd_read_u32le(header);
    cr_assert(message_bytes > 0 && message_bytes <= GRADIENTD_MESSAGE_BYTES_MAX);
    cr_assert_eq(gd_read_u32le(header + 4), 0);
    uint8_t *data = malloc(message_bytes);
    cr_assert(data && read_exactly(client, data, message_bytes));
    Gradientd__DaemonMessage *message = gradientd__daemon_message__unpack(NULL, message_bytes, data);
    free(data);
    cr_assert(message, "the daemon sent what is no message");
    return message;
}

Gradientd__DaemonMessage *raw_client_receive(struct raw_client *client) {
    Gradientd__DaemonMessage *message = raw_client_receive_any(client);
    while (message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ALERT) {
        gradientd__daemon_message__free_unpacked(message, NULL);
        message = raw_client_receive_any(client);
    }
    return message;
}

Gradientd__DaemonMessage *raw_client_receive_error(struct raw_client *client, const char *name) {
    for (;;) {
        Gradientd__DaemonMessage *message = raw_client_receive(client);
        cr_assert(message, "%s: the connection ended without an Error", name);
        if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
            return message;
        cr_assert(message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED ||
                      message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED,
                  "%s: message %d", name, (int)message->message_case);
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
}

void raw_client_expect_end(struct raw_client *client, const char *name) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert_null(message, "%s: message %d after the last one", name, message ? (int)message->message_case : 0);
}

void raw_client_say_hello(struct raw_client *client, uint32_t protocol_version) {
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    hello.protocol_version = protocol_version;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    raw_client_send(client, &message, NULL, 0);
}

void raw_client_send_status_request(struct raw_client *client, uint64_t runs_after, uint64_t alerts_after) {
    Gradientd__StatusRequest request = GRADIENTD__STATUS_REQUEST__INIT;
    request.has_runs_after = runs_after > 0;
    request.runs_after = runs_after;
    request.has_alerts_after = alerts_after != UINT64_MAX;
    request.alerts_after = alerts_after;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST;
    message.status_request = &request;
    raw_client_send(client, &message, NULL, 0);
}

Gradientd__DaemonMessage *raw_client_ask_status(struct raw_client *client, uint64_t runs_after, uint64_t alerts_after) {
    raw_client_send_status_request(client, runs_after, alerts_after);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS, "message %d, no Status",
              message ? (int)message->message_case : 0);
    return message;
}

void raw_open_run_init(struct raw_open_run *open_run) {
    static char name[] = "raw";
    *open_run = (struct raw_open_run){
        .message = GRADIENTD__OPEN_RUN__INIT,
        .stream = GRADIENTD__STREAM__INIT,
        .second_stream = GRADIENTD__STREAM__INIT,
        .optimizer = GRADIENTD__OPTIMIZER__INIT,
        .parameter_group = GRADIENTD__PARAMETER_GROUP__INIT,
    };
    open_run->stream.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    open_run->stream.element_type = GRADIENTD__ELEMENT_TYPE__F32;
    open_run->streams[0] = &open_run->stream;
    open_run->second_stream.kind = GRADIENTD__STREAM_KIND__PARAMETERS;
    open_run->second_stream.element_type = GRADIENTD__ELEMENT_TYPE__F32;
    open_run->streams[1] = &open_run->second_stream;
    open_run->optimizer.rule = GRADIENTD__RULE__SGD;
    open_run->parameter_groups[0] = &open_run->parameter_group;

    open_run->message.run = name;
    open_run->message.wall_time = 1.7e9;
    open_run->message.first_step = 1;
    open_run->message.n_streams = 1;
    open_run->message.streams = open_run->streams;
    open_run->message.optimizer = &open_run->optimizer;
    open_run->message.n_parameter_groups = 1;
    open_run->message.parameter_groups = open_run->parameter_groups;
    open_run->message.start_streams = open_run->start_streams;
    raw_open_run_add_group(open_run, "weights", 7, RAW_NUMEL, 0, 0);
}

void raw_open_run_add_group(struct raw_open_run *open_run, const char *name, size_t name_bytes, uint64_t numel,
                            uint32_t parameter_group, uint32_t step_lag) {
    uint8_t *entry = open_run->table + open_run->table_bytes;
    open_run->table_bytes += GRADIENTD_TABLE_ENTRY_BYTES + name_bytes;
    cr_assert_leq(open_run->table_bytes, sizeof(open_run->table));
    gd_write_u64le(entry, numel);
    gd_write_u32le(entry + 8, parameter_group);
    gd_write_u32le(entry + 12, step_lag);
    entry[16] = (uint8_t)name_bytes;
    memcpy(entry + GRADIENTD_TABLE_ENTRY_BYTES, name, name_bytes);
    open_run->message.groups++;
}

void raw_client_send_open_run(struct raw_client *client, const struct raw_open_run *open_run) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    Gradientd__OpenRun body = open_run->message;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = &body;
    raw_client_send(client, &message, open_run->table, open_run->table_bytes);
}

void raw_client_send_attach(struct raw_client *client, const Gradientd__Attach *attach, const int *fds, size_t n_fds) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    Gradientd__Attach body = *attach;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH;
    message.attach = &body;
    send_frame(client, &message, NULL, 0, fds, n_fds);
}

int raw_memory_new(uint64_t bytes, int seals) {
    int fd = memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert(fd >= 0 && fallocate(fd, 0, 0, (off_t)bytes) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0, "memfd: %s",
              strerror(errno));
    return fd;
}

static void expect_kind(struct raw_client *client, Gradientd__DaemonMessage__MessageCase kind) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message, "the daemon closed the connection");
    cr_assert_eq(message->message_case, kind, "the daemon sent message %d, not %d", (int)message->message_case,
                 (int)kind);
    if (kind == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT) {
        client->total_bytes = message->layout->total_bytes;
        client->slots_offset = message->layout->streams[0]->slots_offset;
        client->slot_stride_bytes = message->layout->streams[0]->slot_stride_bytes;
        client->slots = message->layout->streams[0]->slots;
        client->slot_words_offset = message->layout->streams[0]->slot_words_offset;
        client->waiting_offset = message->layout->waiting_offset;
        client->notices_offset = message->layout->notices_offset;
        client->commits_offset = message->layout->commits_offset;
    }
    if (kind == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED && message->attached->event_path)
        snprintf(client->event_path, sizeof(client->event_path), "%s", message->attached->event_path);
    gradientd__daemon_message__free_unpacked(message, NULL);
}

static void lay_out(struct raw_client *client, const struct raw_open_run *open_run) {
    raw_client_send_open_run(client, open_run);
    expect_kind(client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
}

// A new memory, mapped.
static void map_memory(struct raw_client *client) {
    client->memory_fd = raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS);
    void *memory = mmap(NULL, client->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, client->memory_fd, 0);
    cr_assert_neq(memory, MAP_FAILED, "mmap: %s", strerror(errno));
    client->memory = memory;
}

static void attach(struct raw_client *client, const char *event_path, bool with_memory) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    int fds[2];
    size_t n_fds = 0;
    attach.has_memory = attach.memory = with_memory;
    attach.has_event_file = attach.event_file = event_path != NULL;
    if (with_memory) {
        map_memory(client);
        fds[n_fds++] = client->memory_fd;
    }
    if (event_path) {
        fds[n_fds] = open(event_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        cr_assert_geq(fds[n_fds], 0, "%s: %s", event_path, strerror(errno));
        n_fds++;
    }
    raw_client_send_attach(client, &attach, fds, n_fds);
    if (event_path)
        close(fds[n_fds - 1]);
    expect_kind(client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED);
}

uint32_t raw_client_load_u32(const struct raw_client *client, uint64_t offset) {
    const _Atomic uint32_t *word = (const void *)(client->memory + offset);
    return atomic_load_explicit(word, memory_order_acquire);
}

uint64_t raw_client_load_u64(const struct raw_client *client, uint64_t offset) {
    const _Atomic uint64_t *word = (const void *)(client->memory + offset);
    return atomic_load_explicit(word, memory_order_acquire);
}

void raw_client_wait(struct raw_client *client) {
    _Atomic uint32_t *waiting = (void *)(client->memory + client->waiting_offset);
    atomic_store_explicit(waiting, 1, memory_order_seq_cst);
}

void raw_client_attach(struct raw_client *client, const struct raw_open_run *open_run, const char *event_path) {
    lay_out(client, open_run);
    attach(client, event_path, true);
}

void raw_client_attach_inline(struct raw_client *client, const struct raw_open_run *open_run, const char *event_path) {
    lay_out(client, open_run);
    attach(client, event_path, false);
}

void raw_client_advance(struct raw_client *client, enum raw_stage stage, const char *event_path) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    if (stage >= RAW_WELCOME) {
        raw_client_say_hello(client, GRADIENTD_PROTOCOL_VERSION);
        expect_kind(client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME);
    }
    if (stage >= RAW_LAID_OUT)
        lay_out(client, &open_run);
    if (stage >= RAW_ATTACHED)
        attach(client, event_path, stage != RAW_INLINE);
}

void raw_snapshot_init(struct raw_snapshot *snapshot, uint64_t sequence, int64_t step, uint32_t slot) {
    static char tag[] = "loss";
    *snapshot = (struct raw_snapshot){
        .message = GRADIENTD__SNAPSHOT__INIT,
        .elements = GRADIENTD__STREAM_ELEMENTS__INIT,
        .rates = GRADIENTD__PARAMETER_GROUP_STEP__INIT,
        .scalar = GRADIENTD__SCALAR__INIT,
    };
    snapshot->elements.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    snapshot->elements.has_slot = true;
    snapshot->elements.slot = slot;
    snapshot->streams[0] = &snapshot->elements;
    snapshot->rates.learning_rate = 0.1;
    snapshot->parameter_groups[0] = &snapshot->rates;
    snapshot->scalar.tag = tag;
    snapshot->scalars[0] = &snapshot->scalar;

    snapshot->message.sequence = sequence;
    snapshot->message.step = step;
    snapshot->message.wall_time = 1.7e9 + (double)step;
    snapshot->message.n_streams = 1;
    snapshot->message.streams = snapshot->streams;
    snapshot->message.n_parameter_groups = 1;
    snapshot->message.parameter_groups = snapshot->parameter_groups;
    snapshot->message.scalars = snapshot->scalars; // none of them unless n_scalars is set
}

void raw_client_send_snapshot(struct raw_client *client, const struct raw_snapshot *snapshot) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    Gradientd__Snapshot body = snapshot->message;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    message.snapshot = &body;
    raw_client_send(client, &message, NULL, 0);
}

void raw_client_commit_step(struct raw_client *client, uint32_t n) {
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, n, n, n - 1);
    raw_client_wait(client);
    raw_client_send_snapshot(client, &snapshot);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    cr_assert_eq(message->released->committed_sequence, n);
    gradientd__daemon_message__free_unpacked(message, NULL);
}

void raw_client_send_start_vector(struct raw_client *client, uint64_t sequence, Gradientd__StreamKind kind,
                                  uint64_t optimizer_step) {
    Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
    elements.kind = kind;
    elements.has_slot = true;
    Gradientd__StartVector body = GRADIENTD__START_VECTOR__INIT;
    body.sequence = sequence;
    body.elements = &elements;
    body.optimizer_step = optimizer_step;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
    message.start_vector = &body;
    raw_client_send(client, &message, NULL, 0);
}

void raw_snapshot_make_inline(struct raw_snapshot *snapshot, uint64_t bytes, bool deflated) {
    snapshot->elements.has_slot = false;
    snapshot->elements.has_inline_bytes = true;
    snapshot->elements.inline_bytes = bytes;
    snapshot->elements.has_deflated = snapshot->elements.deflated = deflated;
}

uint8_t *raw_inline_frame(const struct raw_snapshot *snapshot, const void *payload, size_t payload_bytes,
                          size_t *ret_bytes) {
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    Gradientd__Snapshot body = snapshot->message;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    message.snapshot = &body;
    return pack_frame(&message, payload, payload_bytes, ret_bytes);
}

void raw_client_send_inline(struct raw_client *client, const struct raw_snapshot *snapshot, const void *payload,
                            size_t payload_bytes) {
    size_t bytes;
    uint8_t *frame = raw_inline_frame(snapshot, payload, payload_bytes, &bytes);
    raw_client_send_bytes(client, frame, bytes, NULL, 0);
    free(frame);
}

void raw_client_send_scalars(struct raw_client *client, uint64_t sequence, int64_t step, double wall_time,
                             const char *tag) {
    Gradientd__Scalar scalar = GRADIENTD__SCALAR__INIT;
    Gradientd__Scalar *scalars[] = {&scalar};
    scalar.tag = strdup(tag);
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    body.sequence = sequence;
    body.step = step;
    body.wall_time = wall_time;
    body.n_scalars = 1;
    body.scalars = scalars;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;
    raw_client_send(client, &message, NULL, 0);
    free(scalar.tag);
}

void raw_client_send_close_run(struct raw_client *client, uint64_t sequence, Gradientd__Outcome outcome) {
    Gradientd__CloseRun body = GRADIENTD__CLOSE_RUN__INIT;
    body.sequence = sequence;
    body.outcome = outcome;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    message.close_run = &body;
    raw_client_send(client, &message, NULL, 0);
}
