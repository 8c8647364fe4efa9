#include "session_client.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alert_ring.h"
#include "bytes.h"
#include "check_records.h"
#include "gradientd.pb-c.h"
#include "open_runs.h"
#include "session_host.h"
#include "session_memory.h"

enum { SEND_TRIES = 4 };

uint8_t session_take(struct session_input *input) {
    if (input->bytes == 0)
        return 0;
    input->bytes--;
    return *input->data++;
}

void session_client_init(struct session_client *client) {
    *client = (struct session_client){.fd = -1, .event_fd = -1, .open_run = OPEN_RUNS_FIRST, .step = -1};
}

static void check_event_file(const struct session_client *client) {
    struct stat status;
    int result = fstat(client->event_fd, &status);
    assert(result == 0);
    size_t bytes = (size_t)status.st_size;
    uint8_t *records = malloc(bytes + 1);
    assert(records);
    ssize_t got = pread(client->event_fd, records, bytes, 0);
    assert(got == (ssize_t)bytes);
    check_records(records, bytes);
    free(records);
}

void session_client_deinit(struct session_client *client) {
    if (client->event_fd < 0)
        return;
    if (client->event_attachments == 1 && !session_memories_are_spoilt())
        check_event_file(client);
    close(client->event_fd);
}

void session_client_close(struct session_client *client) {
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->unsent_bytes = client->n_unsent_fds = client->unread_bytes = 0;
    client->refused = false;
}

void session_client_connect(struct session_client *client) {
    int ends[2];
    session_client_close(client);
    int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends);
    assert(result == 0);
    client->fd = ends[0];
    client->stage = STAGE_CONNECTED;
    session_host_serve(ends[1]);
}

void session_client_shutdown(struct session_client *client) {
    if (client->fd >= 0)
        shutdown(client->fd, SHUT_WR);
}

// Returns what was sent, 0: nothing for now, or a negative errno.
static ssize_t send_some(struct session_client *client, size_t bytes) {
    union {
        char bytes[CMSG_SPACE(sizeof(client->unsent_fds))];
        struct cmsghdr header;
    } control = {{0}};
    struct iovec vector = {client->unsent, bytes};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    size_t fds_bytes = client->n_unsent_fds * sizeof(int);

    if (fds_bytes > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(fds_bytes);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(fds_bytes);
        memcpy(CMSG_DATA(&control.header), client->unsent_fds, fds_bytes);
    }
    ssize_t sent = sendmsg(client->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return errno == EAGAIN ? 0 : -errno;
    client->n_unsent_fds = 0;
    return sent;
}

void session_client_send(struct session_client *client, bool half) {
    size_t left = half ? (client->unsent_bytes + 1) / 2 : client->unsent_bytes;
    for (int i = 0; client->fd >= 0 && left > 0 && i < SEND_TRIES; i++) {
        ssize_t sent = send_some(client, left);
        if (sent < 0) { // the daemon has closed its end
            client->unsent_bytes = client->n_unsent_fds = 0;
            return;
        }
        left -= (size_t)sent;
        client->unsent_bytes -= (size_t)sent;
        memmove(client->unsent, client->unsent + sent, client->unsent_bytes);
        if (sent == 0)
            session_host_turn();
    }
}

// Of the clients' runs, which have few groups: all of them, in order.
static void check_status(const Gradientd__Status *status) {
    uint64_t number = 0;
    for (size_t i = 0; i < status->n_runs; i++) {
        assert(status->runs[i]->number > number);
        number = status->runs[i]->number;
        assert(status->runs[i]->committed_sequence <= status->runs[i]->received_sequence);
    }
    assert(status->daemon && status->n_users == 1 && !status->more_runs && status->daemon->runs >= status->n_runs);
    assert(status->n_alerts <= GRADIENTD_RECENT_ALERTS);
}

static void take_answer(struct session_client *client, const Gradientd__DaemonMessage *answer) {
    assert(answer && !client->refused);
    switch (answer->message_case) {
    case GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED:
        client->sequence = answer->attached->committed_sequence;
        if (client->sequence == 0)
            client->step = -1;
        break;
    case GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR:
        assert(strlen(answer->error->text) > 0 && strlen(answer->error->text) <= 255);
        client->refused = true;
        break;
    case GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS:
        check_status(answer->status);
        break;
    default:
        assert(answer->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME ||
               answer->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT ||
               answer->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    }
}

void session_client_read(struct session_client *client) {
    ssize_t got;
    while (client->fd >= 0 && (got = recv(client->fd, client->unread + client->unread_bytes,
                                          sizeof(client->unread) - client->unread_bytes, MSG_DONTWAIT)) > 0) {
        client->unread_bytes += (size_t)got;
        while (client->unread_bytes >= GRADIENTD_FRAME_HEADER_BYTES) {
            size_t message_bytes = gd_read_u32le(client->unread), frame_bytes = message_bytes + 8;
            assert(gd_read_u32le(client->unread + 4) == 0 && frame_bytes <= sizeof(client->unread));
            if (client->unread_bytes < frame_bytes)
                break;
            Gradientd__DaemonMessage *answer =
                gradientd__daemon_message__unpack(NULL, message_bytes, client->unread + GRADIENTD_FRAME_HEADER_BYTES);
            take_answer(client, answer);
            gradientd__daemon_message__free_unpacked(answer, NULL);
            client->unread_bytes -= frame_bytes;
            memmove(client->unread, client->unread + frame_bytes, client->unread_bytes);
        }
    }
}
