#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "internal.h"

int client_detach(struct gradientd_run *run, const char *reason) {
    char line[sizeof(run->error.text) + 64];

    close(run->socket);
    run->socket = -1;
    client_fail(&run->error, ECONNRESET, "%s", reason);
    snprintf(line, sizeof(line), "gradientd: %s; training goes on without it%s", reason, run->warn ? "" : "\n");
    if (run->warn)
        run->warn(run->warn_context, line);
    else
        client_print_warning(line);
    return GRADIENTD_DETACHED;
}

int client_take_message(struct gradientd_run *run, Gradientd__DaemonMessage *message) {
    int result = GRADIENTD_OK;
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED &&
        message->released->committed_sequence > run->released_sequence)
        run->released_sequence = message->released->committed_sequence;
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
        result = client_detach(run, message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    return result;
}

static int hear(struct gradientd_run *run, int result, Gradientd__DaemonMessage *message) {
    if (result < 0)
        return client_detach(run,
                             result == -ECONNRESET ? "the daemon went away" : "the daemon sent what is no message");
    return result == 0 ? GRADIENTD_OK : client_take_message(run, message);
}

int client_listen(struct gradientd_run *run, double deadline) {
    Gradientd__DaemonMessage *message = NULL;
    int result = client_receive(run, deadline, &message);
    return hear(run, result, message);
}

int client_listen_to_all(struct gradientd_run *run) {
    for (;;) {
        Gradientd__DaemonMessage *message = NULL;
        int received = client_receive(run, 0.0, &message);
        int result = hear(run, received, message);
        if (received <= 0 || result != GRADIENTD_OK)
            return result;
    }
}

int client_detach_after_send(struct gradientd_run *run) {
    return client_listen_to_all(run) == GRADIENTD_OK ? client_detach(run, "the daemon went away") : GRADIENTD_DETACHED;
}

int client_say(struct gradientd_run *run, const Gradientd__ClientMessage *message, const uint8_t *payload,
               size_t payload_bytes) {
    int result = client_send(run, message, payload, payload_bytes);
    if (result == -ENOBUFS)
        return GRADIENTD_SKIPPED;
    return result < 0 ? client_detach_after_send(run) : GRADIENTD_OK;
}
