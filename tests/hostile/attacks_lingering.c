// Clients that take their time.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "hostile.h"
#include "raw_frames.h"
#include "scratch.h"

enum {
    HELD = 130,        // runs at once, about
    STEPS_BESIDE = 10, // of the victim, while half frames stay
};

static Gradientd__DaemonMessage *expect(struct raw_client *client, Gradientd__DaemonMessage__MessageCase kind) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message, "the connection ended");
    cr_assert_eq(message->message_case, kind, "message %d, not %d", (int)message->message_case, (int)kind);
    return message;
}

static void expect_and_free(struct raw_client *client, Gradientd__DaemonMessage__MessageCase kind) {
    gradientd__daemon_message__free_unpacked(expect(client, kind), NULL);
}

// Sends a frame byte by byte; its descriptors come with the first.
static void trickle(struct raw_client *client, void (*send)(struct raw_client *client), const int *fds, size_t n_fds) {
    struct raw_frame frame;
    raw_frame_capture(&frame, send);
    for (size_t i = 0; i < frame.bytes; i++)
        raw_client_send_bytes(client, frame.data + i, 1, fds, i == 0 ? n_fds : 0);
}

// A whole run, a byte at a time: it is served like any other.
static void train_slowly(const struct attacker *attacker) {
    struct raw_client client = raw_client_connect(attacker->socket);
    trickle(&client, raw_send_hello, NULL, 0);
    expect_and_free(&client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME);
    trickle(&client, raw_send_open_run, NULL, 0);
    Gradientd__DaemonMessage *layout = expect(&client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
    int fds[] = {raw_memory_new(layout->layout->total_bytes, RAW_MEMORY_SEALS),
                 open(attacker->event_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    gradientd__daemon_message__free_unpacked(layout, NULL);
    trickle(&client, raw_send_attach, fds, 2);
    close(fds[0]);
    close(fds[1]);
    expect_and_free(&client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED);
    trickle(&client, raw_send_close_run, NULL, 0);
    expect_and_free(&client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    raw_client_expect_end(&client, "slow");
    raw_client_close(&client);
}

ATTACK(slow) {
    while (attacker_goes_on(attacker)) {
        train_slowly(attacker);
        attacker_did(attacker, 1);
    }
}

// What is sent from each stage on.
static const struct {
    enum raw_stage stage;
    void (*send)(struct raw_client *client);
} steps[] = {
    {RAW_CONNECTED, raw_send_hello},   {RAW_WELCOME, raw_send_open_run}, {RAW_LAID_OUT, raw_send_attach},
    {RAW_INLINE, raw_send_snapshot},   {RAW_INLINE, raw_send_scalars},   {RAW_INLINE, raw_send_close_run},
    {RAW_ATTACHED, raw_send_snapshot},
};

// One connection for each byte a frame can stop at. They stay while the victim trains on; then each sends the rest, or
// goes.
static void stop_at_each_byte(struct attacker *attacker, enum raw_stage stage,
                              void (*send)(struct raw_client *client)) {
    static struct raw_client clients[RAW_FRAME_BYTES_MAX];
    struct raw_frame frame;
    raw_frame_capture(&frame, send);
    for (size_t bytes = 1; bytes < frame.bytes; bytes++) {
        clients[bytes] = attacker_connect(attacker, stage);
        raw_client_send_bytes(&clients[bytes], frame.data, bytes, NULL, 0);
    }
    attacker_wait_victim(attacker, STEPS_BESIDE);
    for (size_t bytes = 1; bytes < frame.bytes; bytes++) {
        if (stress_random_below(&attacker->random, 2))
            raw_client_send_bytes(&clients[bytes], frame.data + bytes, frame.bytes - bytes, NULL, 0);
        raw_client_close(&clients[bytes]);
    }
    attacker_did(attacker, frame.bytes - 1);
}

ATTACK(half_frames) {
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        stop_at_each_byte(attacker, steps[i].stage, steps[i].send);
}

static const struct attack lingering[] = {
    {"slow", slow, .attackers = 4, .options = attacker_room},
    {"half_frames", half_frames, .attackers = 2, .options = attacker_room, .keeps_kib = HELD * 256},
};

struct attacks attacks_lingering(void) {
    return ATTACKS(lingering);
}
