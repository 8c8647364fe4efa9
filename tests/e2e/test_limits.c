// What each user may take: one who asks for more is refused by name, another run of the same user goes on as if nothing
// had happened, and what the offender held is free again when it is gone.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bytes.h"
#include "daemon_process.h"
#include "gradientd/protocol.h"
#include "raw_client.h"
#include "scratch.h"
#include "trainer.h"

enum {
    OTHER_UID = 65534,
    STEPS = 20, // of the run beside the offender; the offence comes in the middle
};

static char directory[SCRATCH_PATH_BYTES];
static char event_path[SCRATCH_PATH_BYTES + 16]; // of the raw clients' runs
static char undisturbed[512];                    // the event file of a run that was alone
static struct daemon_process daemon_process;
static bool daemon_is_up;

// Starts the daemon with one option more.
static void start_with(const char *option, const char *value, void (*prepare)(void)) {
    char socket[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    const char *const arguments[] = {"--socket", socket, "--workers", "2", option, value, NULL};
    daemon_process_launch(&daemon_process, directory, arguments, prepare);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
    daemon_is_up = true;
}

static void stop(void) {
    if (daemon_is_up)
        daemon_process_stop(&daemon_process);
    daemon_is_up = false;
}

static struct gradientd_run *open_trainer(const char *run_name, char path[512]) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, run_name, NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    return run;
}

static void set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    daemon_process_start(&daemon_process, directory);
    daemon_is_up = true;
    struct gradientd_run *run = open_trainer("undisturbed", undisturbed);
    trainer_submit_steps(run, 1, STEPS);
    trainer_close(run);
    stop();
}

static void tear_down(void) {
    stop();
    scratch_remove(directory);
}

TestSuite(limits, .init = set_up, .fini = tear_down, .timeout = 120);

// The run beside the offender.
static struct gradientd_run *victim;
static char victim_path[512];

static void start_victim(void) {
    victim = open_trainer("victim", victim_path);
    trainer_submit_steps(victim, 1, STEPS / 2);
}

static void finish_victim(void) {
    trainer_submit_steps(victim, STEPS / 2 + 1, STEPS);
    trainer_close(victim);
    scratch_expect_same(victim_path, undisturbed);
}

static struct raw_client connect_raw(enum raw_stage stage) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, stage, event_path);
    return client;
}

// The next messages are an Error and the end.
static void expect_refused(struct raw_client *client, Gradientd__ErrorCode code, const char *field, const char *says) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message, "no Error of %s", field);
    cr_assert_eq(message->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR, "%s: message %d", field,
                 (int)message->message_case);
    cr_expect_eq(message->error->code, code, "%s", message->error->text);
    cr_expect_str_eq(message->error->field, field, "%s", message->error->text);
    cr_expect(strstr(message->error->text, says), "\"%s\" does not say \"%s\"", message->error->text, says);
    gradientd__daemon_message__free_unpacked(message, NULL);
    cr_assert_null(raw_client_receive(client), "%s: the connection goes on", field);
    raw_client_close(client);
}

static void expect_quota(struct raw_client *client, const char *field, const char *says) {
    expect_refused(client, GRADIENTD__ERROR_CODE__QUOTA, field, says);
}

// Whether a client comes as far as the Layout of an OpenRun with `numel` elements.
static bool can_open(const void *context) {
    const uint64_t *numel = context;
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    raw_open_run_add_group(&open_run, "more", 4, *numel, 0, 0);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_say_hello(&client, GRADIENTD_PROTOCOL_VERSION);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    bool good = message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME;
    gradientd__daemon_message__free_unpacked(message, NULL);
    if (good) {
        raw_client_send_open_run(&client, &open_run);
        message = raw_client_receive(&client);
        good = message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT;
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
    raw_client_close(&client);
    return good;
}

// The same, ten times a second: asking oftener would use up what there is of messages itself.
static bool can_open_at_leisure(const void *context) {
    usleep(100000);
    return can_open(context);
}

static void expect_free_again(uint64_t numel) {
    cr_assert(scratch_wait_until(can_open_at_leisure, &numel, 20.0), "what the offender held is not free again");
}

// ---- connections

Test(limits, refuses_connections_above_the_limit) {
    struct raw_client clients[3];
    start_with("--connections-per-user", "4", NULL);
    start_victim();
    for (int i = 0; i < 3; i++)
        clients[i] = connect_raw(RAW_WELCOME);
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (int i = 0; i < 100; i++) {
        struct raw_client refused = raw_client_connect(daemon_process.socket);
        if (i % 2)
            raw_client_say_hello(&refused, GRADIENTD_PROTOCOL_VERSION); // it may come before the Error or after
        expect_quota(&refused, "connections", "connections is 1, uid 0 holds 4 already, the limit is 4");
    }
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "refused", NULL);
    struct gradientd_run *run;
    struct gradientd_error error;
    cr_expect_lt(gradientd_open(&options, &run, &error), 0);
    cr_expect(strstr(error.text, "connections is 1, uid 0 holds 4"), "the client library says: %s", error.text);
    daemon_process_expect_fds(&daemon_process, fds); // the client library has not waited for the end
    for (int i = 0; i < 3; i++)
        raw_client_close(&clients[i]);
    expect_free_again(1);
    finish_victim();
}

Test(limits, gives_each_user_an_account) {
    struct raw_client clients[3];
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    start_with("--connections-per-user", "2", NULL);
    cr_assert(chmod(directory, 0755) == 0 && chmod(daemon_process.socket, 0777) == 0);
    clients[0] = connect_raw(RAW_WELCOME);
    clients[1] = connect_raw(RAW_WELCOME);
    cr_assert_eq(seteuid(OTHER_UID), 0); // whose connection it is, the kernel reads at connect
    clients[2] = connect_raw(RAW_LAID_OUT);
    cr_assert_eq(seteuid(0), 0);
    struct raw_client refused = raw_client_connect(daemon_process.socket);
    expect_quota(&refused, "connections", "uid 0 holds 2 already");
    for (int i = 0; i < 3; i++)
        raw_client_close(&clients[i]);
}

// ---- runs, descriptors, memory

Test(limits, refuses_runs_above_the_limit) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    start_with("--runs-per-user", "2", NULL);
    start_victim();
    struct raw_client held = connect_raw(RAW_LAID_OUT), refused = connect_raw(RAW_WELCOME);
    raw_client_send_open_run(&refused, &open_run);
    expect_quota(&refused, "runs", "runs is 1, uid 0 holds 2 already, the limit is 2");
    raw_client_close(&held);
    expect_free_again(1);
    finish_victim();
}

static void send_two_fds(struct raw_client *client) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    int fds[2] = {dup(STDERR_FILENO), dup(STDERR_FILENO)};
    raw_client_send_attach(client, &attach, fds, 2);
    close(fds[0]);
    close(fds[1]);
}

static bool can_attach(const void *context) {
    (void)context;
    struct raw_client client = connect_raw(RAW_LAID_OUT);
    send_two_fds(&client);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    bool good = message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR &&
                strcmp(message->error->field, "memory") == 0; // it was looked at
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
    return good;
}

Test(limits, refuses_descriptors_above_the_limit) {
    start_with("--fds-per-user", "7", NULL); // the victim has 3, the other run 2; who brings some needs room for 3
    start_victim();
    struct raw_client held = connect_raw(RAW_ATTACHED), refused = connect_raw(RAW_LAID_OUT);
    size_t fds = scratch_count_fds(daemon_process.pid);
    send_two_fds(&refused);
    expect_quota(&refused, "fds", "fds is 3, uid 0 holds 5 already, the limit is 7");
    daemon_process_expect_fds(&daemon_process, fds - 1); // nothing of the refused one stays
    raw_client_close(&held);
    cr_assert(scratch_wait_until(can_attach, NULL, 20.0), "the offender's descriptors are not free again");
    finish_victim();
}

Test(limits, refuses_memory_above_the_limit) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    raw_open_run_add_group(&open_run, "large", 5, 4000000, 0, 0);
    start_with("--memory-per-user", "240M", NULL); // such a run takes 122 MiB and some for the daemon
    start_victim();
    struct raw_client held = connect_raw(RAW_WELCOME), refused = connect_raw(RAW_WELCOME);
    raw_client_send_open_run(&held, &open_run);
    gradientd__daemon_message__free_unpacked(raw_client_receive(&held), NULL);
    raw_client_send_open_run(&refused, &open_run);
    expect_quota(&refused, "memory", "(8 slots x 4000008 elements x 4 bytes, and ");
    refused = connect_raw(RAW_WELCOME);
    raw_client_send_open_run(&refused, &open_run);
    expect_quota(&refused, "memory", " already, the limit is 251658240 (");
    raw_client_close(&held);
    expect_free_again(4000000);
    finish_victim();
}

// The table is announced, but nothing of it sent: what it would take is refused before it is there.
Test(limits, refuses_a_group_table_before_it_comes) {
    uint8_t frame[1024];
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = &open_run.message;
    size_t message_bytes = gradientd__client_message__get_packed_size(&message);
    cr_assert_leq(GRADIENTD_FRAME_HEADER_BYTES + message_bytes, sizeof(frame));
    gd_write_u32le(frame, (uint32_t)message_bytes);
    gd_write_u32le(frame + 4, GRADIENTD_TABLE_BYTES_MAX);
    gradientd__client_message__pack(&message, frame + GRADIENTD_FRAME_HEADER_BYTES);

    start_with("--memory-per-user", "32M", NULL);
    start_victim();
    struct raw_client client = connect_raw(RAW_WELCOME);
    raw_client_send_bytes(&client, frame, GRADIENTD_FRAME_HEADER_BYTES + message_bytes, NULL, 0);
    expect_quota(&client, "memory", "the limit is 33554432");
    finish_victim();
}

// ---- messages

Test(limits, refuses_messages_above_the_limit) {
    enum { FLOOD = 5000 };
    start_with("--messages-per-second", "200", NULL);
    start_victim();
    struct raw_client client = connect_raw(RAW_ATTACHED);
    for (uint64_t i = 1; i <= FLOOD; i++)
        raw_client_send_scalars(&client, i, (int64_t)i, 1.7e9, "loss");
    expect_quota(&client, "messages", "messages: uid 0 sent more than 200 within a second");
    finish_victim(); // its messages count as well, but it has sent less than its part
    expect_free_again(1);
}

// ---- the Hello deadline

Test(limits, drops_who_does_not_say_hello) {
    static const uint8_t half[] = {4, 0, 0, 0, 0, 0};
    static const double deadline = 5.0;
    start_with("--workers", "2", NULL);
    double connected = scratch_now();
    struct raw_client silent = raw_client_connect(daemon_process.socket);
    struct raw_client slow = raw_client_connect(daemon_process.socket);
    struct raw_client good = connect_raw(RAW_WELCOME);
    raw_client_send_bytes(&slow, half, sizeof(half), NULL, 0);
    start_victim();
    expect_refused(&silent, GRADIENTD__ERROR_CODE__PROTOCOL, "hello", ", the limit is 5000");
    double waited = scratch_now() - connected;
    cr_expect(waited > deadline - 0.1, "dropped after %.1f s", waited);
    expect_refused(&slow, GRADIENTD__ERROR_CODE__PROTOCOL, "hello", ", the limit is 5000");
    finish_victim();
    cr_expect_not(scratch_wait_readable(good.fd, 0.0), "who has said Hello may take its time");
    raw_client_close(&good);
}

// The daemon stands still past the deadline; the Hello has arrived meanwhile.
Test(limits, a_hello_that_waited_in_the_socket_counts) {
    static const double beyond_the_deadline = 5.2;
    start_with("--workers", "2", NULL);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    struct raw_client later = connect_raw(RAW_WELCOME); // so the first one is accepted by now
    daemon_process_freeze(&daemon_process);
    raw_client_say_hello(&client, GRADIENTD_PROTOCOL_VERSION);
    cr_assert_not(scratch_wait_readable(client.fd, beyond_the_deadline));
    daemon_process_thaw(&daemon_process);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
    raw_client_close(&later);
}

// ---- the process's own limit

static void lower_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &limit);
}

Test(limits, raises_its_soft_limit_of_descriptors) {
    struct rlimit limit;
    start_with("--workers", "2", lower_descriptor_limit);
    cr_assert_eq(prlimit(daemon_process.pid, RLIMIT_NOFILE, NULL, &limit), 0, "%s", strerror(errno));
    cr_assert_gt(limit.rlim_max, 64);
    cr_assert_eq(limit.rlim_cur, limit.rlim_max);
}

// ---- the command line

Test(limits, a_bad_option_ends_with_status_2) {
    static const char *const arguments[] = {"--memory-per-user", "10X", NULL};
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
    int status = daemon_process_wait_end(&daemon_process);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 2);
    struct scratch_bytes log = scratch_read(daemon_process.log);
    cr_assert(memmem(log.data, log.bytes, "--memory-per-user is 10X, the limits are 1M and 1024T", 53));
    free(log.data);
}
