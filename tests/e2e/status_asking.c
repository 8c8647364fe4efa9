#include "status_asking.h"

#include <criterion/criterion.h>
#include <grp.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"

struct raw_client watcher;
static Gradientd__DaemonMessage *answer; // the last one

void status_set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    cr_assert_eq(chmod(directory, 0755), 0);
}

void status_tear_down(void) {
    if (answer)
        gradientd__daemon_message__free_unpacked(answer, NULL);
    fixture_tear_down();
}

void status_start_with(const char *option, ...) {
    char socket[DAEMON_PATH_BYTES], state[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    snprintf(state, sizeof(state), "%s/state", directory);
    const char *arguments[20] = {"--socket",  socket, "--state-directory", state,
                                 "--workers", "2",    "--socket-mode",     "0777"};
    size_t n_arguments = 8;
    va_list more;
    va_start(more, option);
    for (; option; option = va_arg(more, const char *))
        arguments[n_arguments++] = option;
    va_end(more);
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
}

struct raw_client status_greet(void) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    return client;
}

// The kernel reads whose connection it is at connect.
struct raw_client status_greet_as(uid_t user, gid_t primary, gid_t other) {
    cr_assert_eq(setgroups(1, &other), 0);
    cr_assert_eq(setegid(primary), 0);
    cr_assert_eq(seteuid(user), 0);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(setegid(0), 0);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    return client;
}

const Gradientd__Status *status_ask_after(struct raw_client *client, uint64_t runs_after, uint64_t alerts_after) {
    if (answer)
        gradientd__daemon_message__free_unpacked(answer, NULL);
    answer = raw_client_ask_status(client, runs_after, alerts_after);
    return answer->status;
}

size_t status_answer_bytes(void) {
    return gradientd__daemon_message__get_packed_size(answer);
}

const Gradientd__Status *status_ask(struct raw_client *client) {
    return status_ask_after(client, 0, UINT64_MAX);
}

struct progress {
    size_t runs;
    uint64_t sequence;
};

static bool has_come_to(const void *context) {
    const struct progress *progress = context;
    const Gradientd__Status *status = status_ask(&watcher);
    return status->n_runs == progress->runs &&
           (progress->runs == 0 || (status->runs[0]->committed_sequence == progress->sequence &&
                                    status->runs[0]->event_bytes_waiting == 0 && status->daemon->queued == 0));
}

const Gradientd__Status *status_wait_for(size_t runs, uint64_t sequence) {
    const struct progress progress = {runs, sequence};
    cr_assert(scratch_wait_until(has_come_to, &progress, STATUS_SOON),
              "runs %zu, sequence %llu of the first, not %zu and %llu", answer->status->n_runs,
              answer->status->n_runs > 0 ? (unsigned long long)answer->status->runs[0]->committed_sequence : 0, runs,
              (unsigned long long)sequence);
    return answer->status;
}

uint64_t status_refused(const Gradientd__DaemonStatus *daemon, Gradientd__ErrorCode code) {
    for (size_t i = 0; i < daemon->n_refused; i++)
        if (daemon->refused[i]->code == code)
            return daemon->refused[i]->count;
    cr_assert_fail("code %d is not told", (int)code);
    return 0;
}

void status_attach_run(struct raw_client *client, const char *name) {
    struct raw_open_run open_run;
    char copy[1024];
    snprintf(copy, sizeof(copy), "%s", name);
    raw_open_run_init(&open_run);
    open_run.message.run = copy;
    raw_client_attach_inline(client, &open_run, NULL);
}

void status_send_step(struct raw_client *client, uint64_t step, bool finite) {
    float elements[RAW_NUMEL];
    struct raw_snapshot snapshot;
    for (size_t i = 0; i < RAW_NUMEL; i++)
        elements[i] = finite ? (float)(i + step) : NAN;
    raw_snapshot_init(&snapshot, step, (int64_t)step, 0);
    raw_snapshot_make_inline(&snapshot, sizeof(elements), false);
    raw_client_send_inline(client, &snapshot, elements, sizeof(elements));
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    gradientd__daemon_message__free_unpacked(message, NULL);
}
