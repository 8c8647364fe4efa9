#include "daemon_link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "gradientd/protocol.h"

enum {
    INPUT_BYTES = GRADIENTD_FRAME_HEADER_BYTES + GRADIENTD_MESSAGE_BYTES_MAX,
    REQUEST_BYTES_MAX = 128, // two numbers, or a version and a name
};

int gd_trouble_set(struct gd_trouble *ret_trouble, enum gd_trouble_kind kind, int number, const char *format, ...) {
    va_list arguments;
    ret_trouble->kind = kind;
    ret_trouble->error = -number;
    ret_trouble->code = 0;
    va_start(arguments, format);
    vsnprintf(ret_trouble->text, sizeof(ret_trouble->text), format, arguments);
    va_end(arguments);
    return -number;
}

static int fail_silent(const struct gd_daemon_link *link, struct gd_trouble *ret_trouble) {
    char process[32] = "";
    if (link->peer.pid > 1) // 1 is the systemd that made the socket
        snprintf(process, sizeof(process), " (pid %d)", link->peer.pid);
    return gd_trouble_set(ret_trouble, GD_TROUBLE_SILENT, ETIMEDOUT,
                          "the daemon at %s%s does not answer in time: it is stopped, hangs, or has too much to do",
                          link->search.attempts[link->search.n - 1].path, process);
}

static int fail_gone(struct gd_trouble *ret_trouble) {
    return gd_trouble_set(ret_trouble, GD_TROUBLE_GONE, ECONNRESET, "the daemon closed the connection");
}

static int fail_garbage(struct gd_trouble *ret_trouble, const char *what) {
    return gd_trouble_set(ret_trouble, GD_TROUBLE_GARBAGE, EPROTO, "what answers is no gradientd: it sent %s", what);
}

// Until the socket is ready, and no longer than the deadline.
static int wait_for(struct gd_daemon_link *link, short events, struct gd_trouble *ret_trouble) {
    for (;;) {
        int64_t left_ms = link->deadline_ms - gd_now_ms();
        int ready = left_ms <= 0 ? 0 : link->waiter.wait(link->waiter.context, link->fd, events, (int)left_ms);
        if (ready > 0)
            return 0;
        if (ready == 0 && link->deadline_ms <= gd_now_ms())
            return fail_silent(link, ret_trouble);
        if (ready == -ECANCELED)
            return gd_trouble_set(ret_trouble, GD_TROUBLE_INTERRUPTED, ECANCELED, "interrupted");
        if (ready < 0 && ready != -EINTR)
            return gd_trouble_set(ret_trouble, GD_TROUBLE_MACHINE, -ready, "cannot wait: %s", strerror(-ready));
    }
}

// Sends what the socket takes at once: a request is small, and a daemon reads. What it said before it closed the
// connection is still to be read.
static int send_message(struct gd_daemon_link *link, const Gradientd__ClientMessage *message,
                        struct gd_trouble *ret_trouble) {
    uint8_t frame[GRADIENTD_FRAME_HEADER_BYTES + REQUEST_BYTES_MAX];
    size_t bytes = gradientd__client_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    gd_frame_write_header(frame, (uint32_t)bytes, 0);
    bytes += GRADIENTD_FRAME_HEADER_BYTES;
    for (size_t sent = 0; sent < bytes;) {
        ssize_t result = send(link->fd, frame + sent, bytes - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (result >= 0) {
            sent += (size_t)result;
        } else if (errno == EAGAIN) {
            int waited = wait_for(link, POLLOUT, ret_trouble);
            if (waited < 0)
                return waited;
        } else if (errno != EINTR) {
            return 0;
        }
    }
    return 0;
}

static int read_some(struct gd_daemon_link *link, struct gd_trouble *ret_trouble) {
    int result = wait_for(link, POLLIN, ret_trouble);
    if (result < 0)
        return result;
    ssize_t bytes = recv(link->fd, link->input + link->input_bytes, INPUT_BYTES - link->input_bytes, MSG_DONTWAIT);
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (bytes <= 0)
        return fail_gone(ret_trouble);
    link->input_bytes += (size_t)bytes;
    return 0;
}

// Waits for one message and unpacks it. Returns NULL with *ret_trouble set.
static const Gradientd__DaemonMessage *receive(struct gd_daemon_link *link, struct gd_arena *arena,
                                               struct gd_trouble *ret_trouble) {
    struct gd_frame frame;
    struct gd_error error;
    int parsed;
    while ((parsed = gd_frame_parse(link->input, link->input_bytes, &frame, &error)) == GD_FRAME_INCOMPLETE)
        if (read_some(link, ret_trouble) < 0)
            return NULL;
    if (parsed < 0 || frame.payload_bytes > 0) {
        fail_garbage(ret_trouble, parsed < 0 ? "a frame beyond its limits" : "a payload");
        return NULL;
    }

    const Gradientd__DaemonMessage *message =
        gradientd__daemon_message__unpack(&arena->allocator, frame.message_bytes, frame.message);
    link->input_bytes -= frame.head_bytes;
    memmove(link->input, link->input + frame.head_bytes, link->input_bytes);
    if (!message)
        fail_garbage(ret_trouble, arena->exhausted ? "more than fits the memory for it" : "what is no message");
    return message;
}

static void set_refused(const Gradientd__Error *refusal, struct gd_trouble *ret_trouble) {
    bool old = refusal->code == GRADIENTD__ERROR_CODE__UNSUPPORTED;
    gd_trouble_set(ret_trouble, GD_TROUBLE_REFUSED, EBADMSG, "the daemon refuses: %s%s", refusal->text,
                   old ? " (one of another version: restart it, or use its own gradientctl)" : "");
    ret_trouble->code = (int)refusal->code;
}

// Waits for a message of one kind. Returns NULL with *ret_trouble set, also for an Error.
static const Gradientd__DaemonMessage *expect(struct gd_daemon_link *link, Gradientd__DaemonMessage__MessageCase kind,
                                              struct gd_arena *arena, struct gd_trouble *ret_trouble) {
    const Gradientd__DaemonMessage *message = receive(link, arena, ret_trouble);
    if (!message || message->message_case == kind)
        return message;
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
        set_refused(message->error, ret_trouble);
    else
        fail_garbage(ret_trouble, "an answer to another question");
    return NULL;
}

static int say_hello(struct gd_daemon_link *link, struct gd_arena *arena, struct gd_trouble *ret_trouble) {
    static char name[] = "gradientctl " GD_VERSION;
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    hello.client = name;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;

    int result = send_message(link, &message, ret_trouble);
    if (result < 0)
        return result;
    bool welcome = expect(link, GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME, arena, ret_trouble);
    return welcome ? 0 : ret_trouble->error;
}

static int fail_search(const struct gd_socket_search *search, int error, struct gd_trouble *ret_trouble) {
    size_t bytes = 0;
    gd_trouble_set(ret_trouble, GD_TROUBLE_NO_DAEMON, -error, "no daemon answers");
    bytes = strlen(ret_trouble->text);
    for (size_t i = 0; i < search->n && bytes < sizeof(ret_trouble->text); i++) {
        const struct gd_socket_attempt *attempt = &search->attempts[i];
        bytes += (size_t)snprintf(ret_trouble->text + bytes, sizeof(ret_trouble->text) - bytes, "%s %s (%s): %s",
                                  i == 0 ? ":" : ";", attempt->path, attempt->origin,
                                  gd_daemon_socket_reason(attempt->error));
    }
    return error;
}

int gd_daemon_link_open(const char *path, int timeout_ms, const struct gd_waiter *waiter,
                        struct gd_daemon_link *ret_link, struct gd_trouble *ret_trouble) {
    enum { WELCOME_MEMORY_BYTES = 1 << 20 };
    socklen_t peer_bytes = sizeof(ret_link->peer);
    struct gd_arena arena;
    *ret_link = (struct gd_daemon_link){.fd = -1, .waiter = *waiter, .deadline_ms = gd_now_ms() + timeout_ms};
    ret_link->input = malloc(INPUT_BYTES);
    if (!ret_link->input || gd_arena_init(&arena, WELCOME_MEMORY_BYTES) < 0)
        return gd_trouble_set(ret_trouble, GD_TROUBLE_MACHINE, ENOMEM, "no memory");

    int result = ret_link->fd = gd_daemon_socket_connect(path, timeout_ms, &ret_link->search);
    if (result < 0) {
        result = fail_search(&ret_link->search, result, ret_trouble);
    } else {
        getsockopt(ret_link->fd, SOL_SOCKET, SO_PEERCRED, &ret_link->peer, &peer_bytes);
        result = say_hello(ret_link, &arena, ret_trouble);
    }
    gd_arena_deinit(&arena);
    return result;
}

int gd_daemon_link_ask(struct gd_daemon_link *link, const Gradientd__StatusRequest *request, int64_t deadline_ms,
                       struct gd_arena *arena, const Gradientd__Status **ret_status, struct gd_trouble *ret_trouble) {
    Gradientd__StatusRequest copy = *request;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST;
    message.status_request = &copy;

    link->deadline_ms = deadline_ms;
    int result = send_message(link, &message, ret_trouble);
    if (result < 0)
        return result;
    const Gradientd__DaemonMessage *answer =
        expect(link, GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS, arena, ret_trouble);
    if (!answer)
        return ret_trouble->error;
    *ret_status = answer->status;
    return 0;
}

void gd_daemon_link_close(struct gd_daemon_link *link) {
    if (link->fd >= 0)
        close(link->fd);
    free(link->input);
    link->fd = -1;
    link->input = NULL;
    link->input_bytes = 0;
}
