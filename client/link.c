#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

void client_warn(const struct gradientd_run *run, const char *reason, const char *consequence) {
    char line[sizeof(run->error.text) + 64];
    snprintf(line, sizeof(line) - 1, "gradientd: %s; %s", reason, consequence); // 1: for the end of a line
    client_make_printable(line);
    if (run->warn) {
        run->warn(run->warn_context, line);
        return;
    }
    strcat(line, "\n");
    client_print_warning(line);
}

int client_detach(struct gradientd_run *run, const char *reason) {
    char copy[sizeof(run->error.text)]; // the reason may be the run's own error
    snprintf(copy, sizeof(copy), "%s", reason);
    if (run->socket >= 0)
        close(run->socket);
    run->socket = -1;
    run->link = CLIENT_LOST;
    client_fail(&run->error, ECONNRESET, "%s", copy);
    if (!run->way_back.warned || run->way_back.renews) // that it goes on elsewhere was said, and is not so
        client_warn(run, run->error.text, "training goes on without it");
    return GRADIENTD_DETACHED;
}

int client_take_message(struct gradientd_run *run, Gradientd__DaemonMessage *message) {
    int result = GRADIENTD_OK;
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED &&
        message->released->committed_sequence > run->released_sequence)
        run->released_sequence = message->released->committed_sequence;
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ALERT)
        client_alerts_keep(run->alerts, message->alert);
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
        result = client_detach(run, message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    return result;
}

static int hear(struct gradientd_run *run, int result, Gradientd__DaemonMessage *message) {
    if (result < 0)
        return client_lose(run, result == -ECONNRESET ? "the daemon went away" : "the daemon sent what is no message");
    return result == 0 ? GRADIENTD_OK : client_take_message(run, message);
}

int client_listen(struct gradientd_run *run, double deadline) {
    Gradientd__DaemonMessage *message = NULL;
    int result = client_receive(run, deadline, &message);
    return hear(run, result, message);
}

int client_listen_to_all(struct gradientd_run *run) {
    enum { MESSAGES_MAX = 1000 }; // of somebody who sends them without end; a daemon has only a few to say
    for (int i = 0; i < MESSAGES_MAX; i++) {
        Gradientd__DaemonMessage *message = NULL;
        int received = client_receive(run, 0.0, &message);
        int result = hear(run, received, message);
        if (received <= 0 || result != GRADIENTD_OK)
            return result;
    }
    return GRADIENTD_OK;
}

int client_keep_in_touch(struct gradientd_run *run) {
    if (run->link != CLIENT_ATTACHED || run->in_line.elements)
        return GRADIENTD_OK;
    if (client_output_is_empty(&run->output))
        return client_listen(run, 0.0);
    return client_flush(run) < 0 ? client_lose_after_send(run) : GRADIENTD_OK;
}

int client_lose_after_send(struct gradientd_run *run) {
    int result = client_listen_to_all(run);
    return result == GRADIENTD_OK && run->link == CLIENT_ATTACHED ? client_lose(run, "the daemon went away") : result;
}

int client_say(struct gradientd_run *run, const Gradientd__ClientMessage *message, const uint8_t *payload,
               size_t payload_bytes) {
    if (run->output.keeps)
        client_output_trim(&run->output, atomic_load_explicit(run->commits, memory_order_acquire));
    int result = client_send(run, message, payload, payload_bytes);
    if (result == -ENOBUFS)
        return GRADIENTD_SKIPPED;
    return result < 0 ? client_lose_after_send(run) : GRADIENTD_OK;
}
