#include <criterion/criterion.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "hostile.h"
#include "scratch.h"

static const double VICTIM_PATIENCE_SECONDS = 30.0;

const char *const attacker_room[] = {"--connections-per-user",
                                     "1000",
                                     "--runs-per-user",
                                     "1000",
                                     "--fds-per-user",
                                     "3000",
                                     "--memory-per-user",
                                     "50%",
                                     NULL};

bool attacker_goes_on(const struct attacker *attacker) {
    return scratch_now() < attacker->end;
}

void attacker_did(struct attacker *attacker, uint64_t times) {
    atomic_fetch_add(attacker->done, times);
}

struct raw_client attacker_connect(const struct attacker *attacker, enum raw_stage stage) {
    struct raw_client client = raw_client_connect(attacker->socket);
    raw_client_advance(&client, stage, attacker->event_path);
    return client;
}

void attacker_expect_error(struct raw_client *client, Gradientd__ErrorCode code, const char *field) {
    Gradientd__DaemonMessage *message = raw_client_receive_error(client, field);
    cr_assert_eq(message->error->code, code, "code %d of %s: %s", (int)message->error->code, message->error->field,
                 message->error->text);
    cr_assert_str_eq(message->error->field, field, "field %s, not %s: %s", message->error->field, field,
                     message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(client, field);
    raw_client_close(client);
}

bool attacker_is_dropped(const struct raw_client *client) {
    struct pollfd socket = {.fd = client->fd};
    return poll(&socket, 1, 0) == 1 && (socket.revents & (POLLHUP | POLLERR));
}

struct wait {
    const struct victim *victim;
    int64_t steps;
};

static bool has_trained(const void *context) {
    const struct wait *wait = context;
    return wait->victim->report->steps >= wait->steps;
}

void attacker_wait_victim(const struct attacker *attacker, int64_t steps) {
    struct wait wait = {attacker->victim, attacker->victim->report->steps + steps};
    cr_assert(scratch_wait_until(has_trained, &wait, VICTIM_PATIENCE_SECONDS), "the victim does not train on");
}
