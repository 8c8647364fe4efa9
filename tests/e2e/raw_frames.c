#include "raw_frames.h"

#include <criterion/criterion.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gradientd/protocol.h"

void raw_frame_capture(struct raw_frame *frame, void (*send)(struct raw_client *client)) {
    int sockets[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    struct raw_client client = {.fd = sockets[0]};
    send(&client);
    ssize_t bytes = recv(sockets[1], frame->data, sizeof(frame->data), 0);
    cr_assert(bytes > (ssize_t)GRADIENTD_FRAME_HEADER_BYTES && bytes < (ssize_t)sizeof(frame->data));
    frame->bytes = (size_t)bytes;
    close(sockets[0]);
    close(sockets[1]);
}

void raw_send_hello(struct raw_client *client) {
    raw_client_say_hello(client, GRADIENTD_PROTOCOL_VERSION);
}

void raw_send_open_run(struct raw_client *client) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    raw_client_send_open_run(client, &open_run);
}

void raw_send_attach(struct raw_client *client) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    raw_client_send_attach(client, &attach, NULL, 0);
}

void raw_send_snapshot(struct raw_client *client) {
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(client, &snapshot);
}

void raw_send_scalars(struct raw_client *client) {
    raw_client_send_scalars(client, 1, 1, 1.7e9, "loss");
}

void raw_send_close_run(struct raw_client *client) {
    raw_client_send_close_run(client, 1, GRADIENTD__OUTCOME__SUCCESS);
}
