// The way back to a daemon: connect, Hello, the same OpenRun, and Attach with the same memory and event file. It is
// taken a step at a time from inside the trainer's calls, and none of the steps waits for an answer.
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

// Between attempts to connect: doubling from the first pause to the last, so that a daemon that is restarted is found
// soon, and one that never comes back costs next to nothing.
static const double FIRST_PAUSE = 0.01, LAST_PAUSE = 5.0;

// A daemon that answers no sooner has hung; the connection is given up and another one tried.
static const double ANSWER_TIMEOUT = 10.0;

void client_way_back_init(struct client_way_back *way_back) {
    *way_back = (struct client_way_back){.fds = CLIENT_NO_FDS};
}

void client_way_back_deinit(struct client_way_back *way_back) {
    client_close_fds(&way_back->fds);
    free(way_back->logdir);
    free(way_back->run_name);
    free(way_back->open_run);
    free(way_back->socket);
    free(way_back->daemon_path);
}

static int copy_text(const char *text, char **ret_copy) {
    *ret_copy = text ? strdup(text) : NULL;
    return text && !*ret_copy ? -ENOMEM : 0;
}

int client_way_back_remember(struct client_way_back *way_back, const struct gradientd_options *options) {
    way_back->private_daemon = options->private_daemon;
    int result = copy_text(options->socket, &way_back->socket);
    if (result == 0)
        result = copy_text(options->daemon_path, &way_back->daemon_path);
    if (result == 0)
        result = copy_text(options->logdir, &way_back->logdir);
    return result < 0 ? result : copy_text(options->run, &way_back->run_name);
}

// Tries again after a pause.
static void retreat(struct gradientd_run *run) {
    struct client_way_back *way_back = &run->way_back;
    if (run->socket >= 0)
        close(run->socket);
    run->socket = -1;
    run->input_bytes = 0;
    run->link = CLIENT_AWAY;
    way_back->unsent = NULL;
    way_back->retry_at = client_now_monotonic() + way_back->pause;
    way_back->pause = 2.0 * way_back->pause < LAST_PAUSE ? 2.0 * way_back->pause : LAST_PAUSE;
}

int client_lose(struct gradientd_run *run, const char *reason) {
    if (!run->output.keeps) // what went inline is gone
        return client_detach(run, reason);
    bool first_time = !run->way_back.warned;
    run->way_back.warned = true;
    if (run->link == CLIENT_ATTACHED) {
        run->way_back.pause = FIRST_PAUSE;
        run->way_back.lost_at = client_now_monotonic();
    }
    retreat(run);
    if (first_time)
        client_warn(run, reason, "steps are skipped until it is back");
    return GRADIENTD_OK;
}

void client_hurry_back(struct gradientd_run *run) {
    run->way_back.retry_at = 0.0;
    run->way_back.pause = FIRST_PAUSE;
}

// Begins to send bytes that are not a part of the run's messages.
static void begin_sending(struct gradientd_run *run, const uint8_t *data, size_t bytes) {
    run->way_back.unsent = data;
    run->way_back.unsent_bytes = bytes;
}

// A daemon has its time from the last that went on: a trainer may look only once in a long step.
static void expect_answer(struct client_way_back *way_back) {
    way_back->answer_by = client_now_monotonic() + ANSWER_TIMEOUT;
}

// Sends what the socket takes. Where it broke, reading tells.
static void send_rest(struct gradientd_run *run) {
    struct client_way_back *way_back = &run->way_back;
    while (way_back->unsent_bytes > 0) {
        ssize_t sent = send(run->socket, way_back->unsent, way_back->unsent_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return;
        way_back->unsent += sent;
        way_back->unsent_bytes -= (size_t)sent;
        expect_answer(way_back);
    }
}

static void connect_again(struct gradientd_run *run) {
    struct client_way_back *way_back = &run->way_back;
    struct gradientd_error error;
    if (client_now_monotonic() < way_back->retry_at)
        return;
    int socket = client_connect(way_back->socket, way_back->private_daemon, way_back->daemon_path, &error);
    bool nobody_there = socket < 0 && socket != -EAGAIN; // a full backlog is somebody's
    if (nobody_there && !way_back->nobody_there)
        way_back->nobody_since = client_now_monotonic();
    way_back->nobody_there = nobody_there;
    if (socket < 0) {
        retreat(run);
        return;
    }
    run->socket = socket;
    expect_answer(way_back);
    begin_sending(run, way_back->hello, client_pack_hello(way_back->hello));
    run->link = CLIENT_GREETING;
}

// The daemon that came back cannot go on with the memory there is: the run goes on in other memory and another file,
// once. The step under way is not seen.
static int renew(struct gradientd_run *run, const char *reason) {
    struct client_way_back *way_back = &run->way_back;
    if (way_back->renews)
        return client_detach(run, reason);
    client_warn(run, reason, "the run goes on in a new event file");
    if (client_renewal_begin(run) < 0)
        return client_detach(run, "no memory for another attachment");
    way_back->renews = true;
    retreat(run);
    way_back->retry_at = 0.0;
    return GRADIENTD_SKIPPED;
}

// An Error on the way: whoever holds the run, or has no room or no memory for it, may do better later; memory that this
// daemon cannot use is given up; all else is for good.
static int take_refusal(struct gradientd_run *run, const Gradientd__Error *error) {
    if (error->code == GRADIENTD__ERROR_CODE__MEMORY)
        return renew(run, error->text);
    if (error->code != GRADIENTD__ERROR_CODE__OWNED && error->code != GRADIENTD__ERROR_CODE__QUOTA &&
        error->code != GRADIENTD__ERROR_CODE__INTERNAL)
        return client_detach(run, error->text);
    retreat(run);
    return GRADIENTD_OK;
}

// What was sent and is not committed is sent again.
static void resume(struct gradientd_run *run, const Gradientd__Attached *attached) {
    run->link = CLIENT_ATTACHED;
    char *path = run->way_back.renews && attached->event_path ? strdup(attached->event_path) : NULL;
    if (path)
        client_renewal_replace_path(run, path);
    run->way_back.renews = false;
    run->way_back.pause = FIRST_PAUSE;
    client_output_rewind(&run->output, attached->committed_sequence);
}

static int send_attach(struct gradientd_run *run) {
    if (client_send_attach(run->socket, &run->way_back.fds) < 0)
        return client_lose(run, "the daemon went away");
    expect_answer(&run->way_back);
    run->link = CLIENT_ATTACHING;
    return GRADIENTD_OK;
}

static int take_layout(struct gradientd_run *run, Gradientd__DaemonMessage *message) {
    uint64_t total_bytes = message->layout->total_bytes;
    if (!run->memory) {
        if (client_renewal_make(run, message) < 0)
            return client_detach(run, "no memory for another attachment");
        run->link = CLIENT_PREPARING;
        return GRADIENTD_OK;
    }
    gradientd__daemon_message__free_unpacked(message, NULL);
    if (total_bytes != run->memory_bytes)
        return renew(run, "the daemon that came back lays this run out in another way");
    return send_attach(run);
}

// Attaches with the new memory once it is there.
static int take_new_memory(struct gradientd_run *run) {
    int taken = client_renewal_take(run);
    if (taken < 0)
        return client_detach(run, run->error.text);
    return taken == 0 ? GRADIENTD_OK : send_attach(run);
}

// Takes and frees the answer to what was said last.
static int take_answer(struct gradientd_run *run, Gradientd__DaemonMessage *message) {
    struct client_way_back *way_back = &run->way_back;
    static const Gradientd__DaemonMessage__MessageCase expected[] = {
        [CLIENT_GREETING] = GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME,
        [CLIENT_DESCRIBING] = GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT,
        [CLIENT_ATTACHING] = GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED,
    };
    int result = GRADIENTD_OK;
    if (message->message_case == expected[CLIENT_DESCRIBING] && run->link == CLIENT_DESCRIBING)
        return take_layout(run, message);
    if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR) {
        result = take_refusal(run, message->error);
    } else if (message->message_case != expected[run->link]) {
        result = client_lose(run, "the daemon sent something unexpected");
    } else if (run->link == CLIENT_GREETING) {
        begin_sending(run, way_back->open_run, way_back->open_run_bytes);
        expect_answer(way_back);
        run->link = CLIENT_DESCRIBING;
    } else {
        resume(run, message->attached);
    }
    gradientd__daemon_message__free_unpacked(message, NULL);
    return result;
}

int client_come_back(struct gradientd_run *run) {
    while (run->link != CLIENT_ATTACHED) {
        if (run->link == CLIENT_AWAY)
            connect_again(run);
        if (run->link == CLIENT_PREPARING) {
            int result = take_new_memory(run);
            if (result != GRADIENTD_OK || run->link == CLIENT_PREPARING)
                return result;
        }
        if (run->link == CLIENT_AWAY)
            return GRADIENTD_OK;
        send_rest(run);
        Gradientd__DaemonMessage *message;
        int result = client_receive(run, 0.0, &message);
        if (result == 0 && client_now_monotonic() < run->way_back.answer_by)
            return GRADIENTD_OK;
        if (result <= 0) {
            retreat(run);
            return GRADIENTD_OK;
        }
        result = take_answer(run, message);
        if (result != GRADIENTD_OK)
            return result;
    }
    return GRADIENTD_OK;
}

int client_wait_to_come_back(struct gradientd_run *run, double deadline) {
    enum { PAUSE_MS = 5 };
    while (run->link != CLIENT_ATTACHED && client_now_monotonic() < deadline) {
        bool prepares = run->link == CLIENT_PREPARING; // for which a negative descriptor only waits
        struct pollfd answer = {.fd = prepares ? -1 : run->socket, .events = POLLIN};
        poll(&answer, 1, PAUSE_MS);
        int result = client_come_back(run);
        if (result != GRADIENTD_OK)
            return result;
    }
    return GRADIENTD_OK;
}
