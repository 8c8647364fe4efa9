// Messages and connections as many and as fast as they go.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "hostile.h"
#include "raw_frames.h"
#include "scratch.h"

enum {
    MANY_CONNECTIONS = 1000,
    CONNECTIONS_DEFAULT = 64,                   // per user
    LEFT_CONNECTIONS = CONNECTIONS_DEFAULT - 1, // beside the victim's
    STEPS_BESIDE = 20,                          // of the victim
};

static const double PATIENCE_SECONDS = 30.0;

struct commits {
    const struct raw_client *client;
    uint64_t sequence;
};

static bool has_committed(const void *context) {
    const struct commits *commits = context;
    return raw_client_load_u64(commits->client, commits->client->commits_offset) >= commits->sequence;
}

// Valid Scalars at full speed; the run is closed, and every one was taken.
ATTACK(scalars) {
    struct raw_client client = attacker_connect(attacker, RAW_ATTACHED);
    uint64_t sequence = 0;
    while (attacker_goes_on(attacker)) {
        sequence++;
        raw_client_send_scalars(&client, sequence, (int64_t)sequence, 1.7e9, "loss");
    }
    attacker_did(attacker, sequence++);
    raw_client_send_close_run(&client, sequence, GRADIENTD__OUTCOME__SUCCESS);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    cr_assert_eq(message->released->committed_sequence, sequence);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(&client, "scalars");
    raw_client_close(&client);
}

// The same where the user may send less.
ATTACK(messages) {
    enum { FLOOD = 100000 };
    struct raw_client client = attacker_connect(attacker, RAW_ATTACHED);
    for (uint64_t i = 1; i <= FLOOD && !attacker_is_dropped(&client); i++)
        raw_client_send_scalars(&client, i, (int64_t)i, 1.7e9, "loss");
    attacker_expect_error(&client, GRADIENTD__ERROR_CODE__QUOTA, "messages");
    attacker_did(attacker, 1);
}

// As many Hello as a send takes.
ATTACK(hello) {
    enum { FRAMES = 1000 };
    static uint8_t flood[FRAMES * RAW_FRAME_BYTES_MAX];
    struct raw_frame frame;
    raw_frame_capture(&frame, raw_send_hello);
    for (size_t i = 0; i < FRAMES; i++)
        memcpy(flood + i * frame.bytes, frame.data, frame.bytes);
    while (attacker_goes_on(attacker)) {
        struct raw_client client = raw_client_connect(attacker->socket);
        raw_client_send_bytes(&client, flood, FRAMES * frame.bytes, NULL, 0);
        Gradientd__DaemonMessage *message = raw_client_receive(&client);
        cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME);
        gradientd__daemon_message__free_unpacked(message, NULL);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__PROTOCOL, "message");
        attacker_did(attacker, 1);
    }
}

// Connects and goes, some after a Hello or a part of it. How many are refused depends on how fast the daemon is.
ATTACK(connects) {
    struct raw_frame frame;
    raw_frame_capture(&frame, raw_send_hello);
    while (attacker_goes_on(attacker)) {
        struct raw_client client = raw_client_connect(attacker->socket);
        uint32_t bytes = stress_random_below(&attacker->random, (uint32_t)frame.bytes + 1);
        if (bytes > 0)
            raw_client_send_bytes(&client, frame.data, bytes, NULL, 0);
        raw_client_close(&client);
        attacker_did(attacker, 1);
    }
}

// Asks for a Released after every message and reads none: those that the socket does not take become one, so that the
// run goes on to its end.
ATTACK(never_reads) {
    struct raw_client client = attacker_connect(attacker, RAW_ATTACHED);
    uint64_t sequence = 0;
    while (attacker_goes_on(attacker)) {
        sequence++;
        raw_client_wait(&client);
        raw_client_send_scalars(&client, sequence, (int64_t)sequence, 1.7e9, "loss");
    }
    struct commits commits = {&client, sequence};
    cr_assert(scratch_wait_until(has_committed, &commits, PATIENCE_SECONDS), "%llu of %llu messages are committed",
              (unsigned long long)raw_client_load_u64(&client, client.commits_offset), (unsigned long long)sequence);
    attacker_did(attacker, sequence);
    raw_client_close(&client);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// Whether the daemon answers Hello with Welcome; an Error must be that of the quota.
static bool is_welcome(struct raw_client *client) {
    raw_client_say_hello(client, GRADIENTD_PROTOCOL_VERSION);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message, "a connection ended without an answer");
    bool welcome = message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME;
    cr_assert(welcome || (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR &&
                          message->error->code == GRADIENTD__ERROR_CODE__QUOTA &&
                          strcmp(message->error->field, "connections") == 0));
    gradientd__daemon_message__free_unpacked(message, NULL);
    return welcome;
}

// Connects a thousand times and stays while the victim trains on; how many the daemon serves.
static size_t connect_many(struct attacker *attacker) {
    static struct raw_client clients[MANY_CONNECTIONS];
    size_t welcome = 0;
    raise_descriptor_limit();
    for (size_t i = 0; i < MANY_CONNECTIONS; i++)
        clients[i] = raw_client_connect(attacker->socket);
    for (size_t i = 0; i < MANY_CONNECTIONS; i++)
        welcome += is_welcome(&clients[i]);
    attacker_wait_victim(attacker, STEPS_BESIDE);
    for (size_t i = 0; i < MANY_CONNECTIONS; i++)
        raw_client_close(&clients[i]);
    attacker_did(attacker, MANY_CONNECTIONS);
    return welcome;
}

ATTACK(thousand) {
    cr_assert_eq(connect_many(attacker), MANY_CONNECTIONS);
}

ATTACK(thousand_refused) {
    size_t welcome = connect_many(attacker);
    cr_assert_eq(welcome, LEFT_CONNECTIONS, "%zu of them were served", welcome);
}

static const char *const few_messages[] = {"--messages-per-second", "20000", NULL};
static const char *const many_connections[] = {"--connections-per-user", "1001", NULL};

static const struct attack flooding[] = {
    {"scalars", scalars, .attackers = 3},
    {"messages", messages, .attackers = 3, .options = few_messages},
    {"hello", hello, .attackers = 3, .options = attacker_room},
    {"connects", connects, .attackers = 4},
    {"never_reads", never_reads, .attackers = 2},
    {"thousand", thousand, .attackers = 1, .options = many_connections, .keeps_kib = MANY_CONNECTIONS * 16},
    {"thousand_refused", thousand_refused, .attackers = 1},
};

struct attacks attacks_flooding(void) {
    return ATTACKS(flooding);
}
