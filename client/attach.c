#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "frame.h"
#include "internal.h"

// Packs one of the small messages. Returns the frame's bytes.
static size_t pack_frame(const Gradientd__ClientMessage *message, uint8_t *frame) {
    size_t message_bytes = gradientd__client_message__pack(message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    gd_frame_write_header(frame, (uint32_t)message_bytes, 0);
    return GRADIENTD_FRAME_HEADER_BYTES + message_bytes;
}

// Waits for the daemon's next message, which must be of one kind. The caller frees *ret_message, untouched on failure.
static int expect(struct gradientd_run *run, Gradientd__DaemonMessage__MessageCase kind, const char *name,
                  double deadline, Gradientd__DaemonMessage **ret_message, struct gradientd_error *ret_error) {
    Gradientd__DaemonMessage *message;
    int result = client_receive(run, deadline, &message);
    if (result == 0)
        return client_fail(ret_error, ETIMEDOUT, "the daemon did not send %s within connect_timeout", name);
    if (result < 0)
        return client_fail(ret_error, -result, "the daemon went away before it sent %s", name);
    if (message->message_case == kind) {
        *ret_message = message;
        return 0;
    }
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
        result = client_fail(ret_error, EBADMSG, "the daemon refused: %s", message->error->text);
    else
        result = client_fail(ret_error, EPROTO, "the daemon sent something else than %s", name);
    gradientd__daemon_message__free_unpacked(message, NULL);
    return result;
}

size_t client_pack_hello(uint8_t frame[static CLIENT_HELLO_BYTES_MAX]) {
    char name[] = "libgradientd " GD_VERSION;
    Gradientd__Hello hello = GRADIENTD__HELLO__INIT;
    hello.protocol_version = GRADIENTD_PROTOCOL_VERSION;
    hello.client = name;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO;
    message.hello = &hello;
    return pack_frame(&message, frame);
}

static int say_hello(struct gradientd_run *run, double deadline, struct gradientd_error *ret_error) {
    uint8_t frame[CLIENT_HELLO_BYTES_MAX];
    client_output_add_payload(&run->output, frame, client_pack_hello(frame));
    client_flush(run); // a daemon that is gone shows when its answer is read

    Gradientd__DaemonMessage *reply = NULL;
    int result = expect(run, GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME, "Welcome", deadline, &reply, ret_error);
    if (!reply)
        return result;
    if (reply->welcome->protocol_version != GRADIENTD_PROTOCOL_VERSION)
        result = client_fail(ret_error, EPROTO, "the daemon speaks protocol %u, this client %d",
                             reply->welcome->protocol_version, GRADIENTD_PROTOCOL_VERSION);
    gradientd__daemon_message__free_unpacked(reply, NULL);
    return result;
}

static int open_run(struct gradientd_run *run, const struct gradientd_options *options, double deadline,
                    Gradientd__DaemonMessage **ret_layout, struct gradientd_error *ret_error) {
    struct client_way_back *way_back = &run->way_back;
    int result = client_describe(options, run->elements, &way_back->open_run, &way_back->open_run_bytes, ret_error);
    if (result < 0)
        return result;
    client_output_add_payload(&run->output, way_back->open_run, way_back->open_run_bytes);
    client_flush(run); // a daemon that is gone shows when its answer is read
    result = expect(run, GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT, "Layout", deadline, ret_layout, ret_error);
    client_output_add_payload(&run->output, NULL, 0); // after a refusal, some of it may be unsent
    if (*ret_layout && !client_layout_fits(run, (*ret_layout)->layout))
        result = client_fail(ret_error, EPROTO, "the daemon's memory layout (version %u) is not one this client knows",
                             (*ret_layout)->layout->layout_version);
    return result;
}

void client_close_fds(struct client_fds *fds) {
    if (fds->memory >= 0)
        close(fds->memory);
    if (fds->event_file >= 0)
        close(fds->event_file);
    if (fds->pidfd >= 0)
        close(fds->pidfd);
    *fds = CLIENT_NO_FDS;
}

int client_open_own_pidfd(void) {
    return client_lift_descriptor((int)syscall(SYS_pidfd_open, getpid(), 0));
}

int client_send_attach(int socket, const struct client_fds *fds) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.has_event_file = attach.has_pidfd = true;
    attach.memory = fds->memory >= 0;
    attach.event_file = fds->event_file >= 0;
    attach.pidfd = fds->pidfd >= 0;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH;
    message.attach = &attach;

    uint8_t frame[64];
    size_t frame_bytes = pack_frame(&message, frame);

    const int all[GRADIENTD_FDS_MAX] = {fds->memory, fds->event_file, fds->pidfd};
    int sent[GRADIENTD_FDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < GRADIENTD_FDS_MAX; i++)
        if (all[i] >= 0)
            sent[count++] = all[i];
    union {
        char bytes[CMSG_SPACE(sizeof(sent))];
        struct cmsghdr header;
    } control = {
        .header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(count * sizeof(int))}};
    memcpy(CMSG_DATA(&control.header), sent, count * sizeof(int));
    struct iovec vector = {frame, frame_bytes};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    return sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)vector.iov_len ? 0 : -errno;
}

// Creates what the run shares with the daemon. The caller closes what is there, after a failure too.
static int create_shared(struct gradientd_run *run, const struct gradientd_options *options,
                         const Gradientd__Layout *layout, struct client_fds *fds, struct gradientd_error *ret_error) {
    if (!run->in_line.elements) {
        fds->memory = client_create_memory(run, layout, ret_error);
        if (fds->memory < 0)
            return fds->memory;
    }
    if (options->logdir) {
        fds->event_file =
            client_create_event_file(options->logdir, options->run ? options->run : "", &run->event_path, ret_error);
        if (fds->event_file < 0)
            return fds->event_file;
    }
    bool may_be_forwarded = run->in_line.elements && !options->logdir; // then descriptors do not get through
    fds->pidfd = may_be_forwarded ? -1 : client_open_own_pidfd();
    return 0;
}

// Sends Attach and waits for the daemon to have checked what came with it.
static int hand_over(struct gradientd_run *run, const struct client_fds *fds, double deadline,
                     struct gradientd_error *ret_error) {
    Gradientd__DaemonMessage *reply = NULL;
    int result = client_send_attach(run->socket, fds);
    if (result < 0)
        client_fail(ret_error, -result, "sending Attach: %s", strerror(-result));
    else
        result = expect(run, GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED, "Attached", deadline, &reply, ret_error);
    if (!reply)
        return result;
    if (!run->event_path && reply->attached->event_path)
        run->event_path = strdup(reply->attached->event_path);
    if (!run->event_path)
        result = client_fail(ret_error, EPROTO, "the daemon did not say where the event file is");
    gradientd__daemon_message__free_unpacked(reply, NULL);
    return result;
}

static int share(struct gradientd_run *run, const struct gradientd_options *options, const Gradientd__Layout *layout,
                 struct gradientd_error *ret_error) {
    struct client_fds *fds = &run->way_back.fds;
    int result = create_shared(run, options, layout, fds, ret_error);
    if (result == 0)
        result = hand_over(run, fds, client_now_monotonic() + options->connect_timeout, ret_error);
    if (result < 0)
        return result;
    run->link = CLIENT_ATTACHED;
    run->output.keeps = fds->memory >= 0;
    run->output.first_sequence = 1;
    if (!run->output.keeps)
        client_close_fds(fds);
    return 0;
}

int client_attach(struct gradientd_run *run, const struct gradientd_options *options,
                  struct gradientd_error *ret_error) {
    double deadline = client_now_monotonic() + options->connect_timeout;
    int result = say_hello(run, deadline, ret_error);
    if (result < 0)
        return result;
    Gradientd__DaemonMessage *layout = NULL;
    result = open_run(run, options, deadline, &layout, ret_error);
    if (!layout)
        return result;
    if (result == 0)
        result = share(run, options, layout->layout, ret_error);
    if (result == 0)
        result = client_send_start(run, options, layout->layout, ret_error);
    if (result < 0 && options->logdir && run->event_path)
        unlink(run->event_path); // a file without a step would show as a run
    gradientd__daemon_message__free_unpacked(layout, NULL);
    return result;
}
