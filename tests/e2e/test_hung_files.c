// A client's descriptor on a file system that does not answer holds up that client alone. The daemon runs with
// hung_files.c preloaded.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon_process.h"
#include "raw_client.h"
#include "scratch.h"
#include "trainer.h"

static char directory[SCRATCH_PATH_BYTES];
static struct daemon_process daemon_process;
static size_t daemon_fds; // before there is anything that hangs

static bool exists(const void *path) {
    return access(path, F_OK) == 0;
}

// With a metrics file that hangs, as long as it runs.
static void set_up(void) {
    char socket[DAEMON_PATH_BYTES], metrics[SCRATCH_PATH_BYTES + 16], temporary[SCRATCH_PATH_BYTES + 24];
    scratch_make(directory);
    snprintf(metrics, sizeof(metrics), "%s/metrics.hung", directory);
    snprintf(temporary, sizeof(temporary), "%s.tmp", metrics);
    cr_assert_eq(setenv("LD_PRELOAD", getenv("GRADIENTD_TEST_PRELOADED"), 1), 0);
    cr_assert_eq(setenv("CONFIGURATION_DIRECTORY", directory, 1), 0); // where there is no file yet
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    const char *const arguments[] = {
        "--socket",           socket, "--workers", "2", "--fds-per-user", "12", "--metrics-file", metrics,
        "--metrics-interval", "1",    NULL};
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
    cr_assert(daemon_process_comes_up(&daemon_process));
    cr_assert(scratch_wait_until(exists, temporary, 20.0), "nothing hangs");
    unsetenv("LD_PRELOAD");
}

static void tear_down(void) {
    if (daemon_process.pid > 0)
        daemon_process_kill(&daemon_process);
    scratch_remove(directory);
}

TestSuite(hung_files, .init = set_up, .fini = tear_down, .timeout = 60);

static int open_hung(void) {
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/file.hung", directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0);
    return fd;
}

static void expect_others_served(void) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "other", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 20);
    trainer_close(run);
}

Test(hung_files, an_event_file_that_hangs_holds_up_its_run_alone) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    int fds[2] = {raw_memory_new(client.total_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), open_hung()};
    raw_client_send_attach(&client, &attach, fds, 2);
    expect_others_served();
    cr_expect_not(scratch_wait_readable(client.fd, 0.2), "a file was taken that does not answer");
    close(fds[0]);
    close(fds[1]);
    raw_client_close(&client);
    expect_others_served();
}

static bool is_reading_hung(const void *context) {
    (void)context;
    return scratch_count_fds(daemon_process.pid) > daemon_fds;
}

Test(hung_files, a_configuration_that_hangs_holds_up_nobody) {
    char path[SCRATCH_PATH_BYTES + 16];
    close(open_hung());
    snprintf(path, sizeof(path), "%s/gradientd.conf", directory);
    cr_assert_eq(symlink("file.hung", path), 0);
    daemon_fds = scratch_count_fds(daemon_process.pid);
    cr_assert_eq(kill(daemon_process.pid, SIGHUP), 0);
    cr_assert(scratch_wait_until(is_reading_hung, NULL, 20.0), "it does not read");
    expect_others_served();
    cr_assert_eq(kill(daemon_process.pid, SIGHUP), 0);
    expect_others_served();
    daemon_process_stop(&daemon_process);
}

// Attaches `memory` with an event file (consumed).
static void send_attach(struct raw_client *client, int memory, int event_file) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    raw_client_send_attach(client, &attach, (int[]){memory, event_file}, 2);
    close(event_file);
}

// Attaches memory with a file that hangs, and waits until the daemon is looking at it.
static int attach_hung(struct raw_client *client) {
    *client = raw_client_connect(daemon_process.socket);
    raw_client_advance(client, RAW_LAID_OUT, NULL);
    int memory = raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS);
    send_attach(client, memory, open_hung());
    expect_others_served();
    return memory;
}

// Another daemon goes on with the run in `memory` (consumed).
static void expect_goes_on_consume(int memory) {
    struct raw_snapshot snapshot;
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/good", directory);
    daemon_process_kill(&daemon_process);
    daemon_process_start(&daemon_process, directory);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    send_attach(&client, memory, open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    close(memory);
    raw_snapshot_init(&snapshot, 1, 1, 0);
    gradientd__daemon_message__free_unpacked(raw_client_receive(&client), NULL);
    raw_client_send_snapshot(&client, &snapshot);
    raw_client_send_close_run(&client, 2, GRADIENTD__OUTCOME__SUCCESS);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    cr_assert(message);
    cr_assert_eq(message->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    cr_expect_eq(message->released->committed_sequence, 2, "the run had been ended");
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
}

// The daemon is told to stop while it waits for the file: the trainer goes on with the run elsewhere.
Test(hung_files, a_stopping_daemon_ends_no_run_that_waits_for_its_file) {
    struct raw_client client;
    int memory = attach_hung(&client);
    cr_assert_eq(kill(daemon_process.pid, SIGTERM), 0);
    cr_assert_null(raw_client_receive(&client));
    raw_client_close(&client);
    expect_goes_on_consume(memory);
}

// The trainer gives up waiting for Attached, to try again.
Test(hung_files, a_client_that_tires_of_waiting_ends_no_run) {
    struct raw_client client;
    int memory = attach_hung(&client);
    raw_client_close(&client);
    expect_others_served(); // so the end was seen
    expect_goes_on_consume(memory);
}

Test(hung_files, a_state_directory_that_hangs_holds_up_its_run_alone) {
    static char name[] = "run.hung";
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    open_run.message.run = name;
    raw_client_send_open_run(&client, &open_run);
    Gradientd__DaemonMessage *layout = raw_client_receive(&client);
    cr_assert(layout && layout->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
    int memory = raw_memory_new(layout->layout->total_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    gradientd__daemon_message__free_unpacked(layout, NULL);
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = true;
    raw_client_send_attach(&client, &attach, &memory, 1);
    expect_others_served();
    cr_expect_not(scratch_wait_readable(client.fd, 0.2), "a file was created on a file system that does not answer");
    close(memory);
    raw_client_close(&client);
    expect_others_served();
}

Test(hung_files, a_descriptor_nobody_asked_for_holds_up_nobody) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    int fd = open_hung();
    raw_client_send_bytes(&client, "\1", 1, &fd, 1);
    raw_client_close(&client);
    close(fd);
    expect_others_served();
}

Test(hung_files, a_pidfd_that_is_none_holds_up_nobody) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_pidfd = attach.pidfd = true;
    int fd = open_hung();
    raw_client_send_attach(&client, &attach, &fd, 1);
    close(fd);
    expect_others_served();
    Gradientd__DaemonMessage *message = raw_client_receive_error(&client, "a file as pidfd");
    cr_assert_str_eq(message->error->field, "pidfd");
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
}

// It holds up neither clients nor the daemon's end, but for a second.
Test(hung_files, a_metrics_file_that_hangs_holds_up_nobody) {
    expect_others_served();
    double begun = scratch_now();
    kill(daemon_process.pid, SIGTERM);
    cr_expect_eq(daemon_process_wait_end(&daemon_process), 0);
    cr_expect_lt(scratch_now() - begun, 5.0);
    daemon_process_start(&daemon_process, directory);
}

// Threads that never come back from close() keep what they hold charged.
Test(hung_files, descriptors_that_hang_count_until_they_are_closed) {
    Gradientd__DaemonMessage *message = NULL;
    int hung = open_hung(), sent[3] = {hung, hung, hung};
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (int i = 0; i <= 12 / 3; i++) {
        struct raw_client client = raw_client_connect(daemon_process.socket);
        raw_client_send_bytes(&client, "\1", 1, sent, 3);
        raw_client_send_bytes(&client, "\2\3\4\5\6\7\10", 7, NULL, 0); // a message too long: the end
        message = raw_client_receive(&client);
        cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR);
        bool full = message->error->code == GRADIENTD__ERROR_CODE__QUOTA;
        cr_expect_eq(full, i == 12 / 3, "client %d: %s", i, message->error->text);
        gradientd__daemon_message__free_unpacked(message, NULL);
        raw_client_close(&client);
    }
    cr_assert_leq(scratch_count_fds(daemon_process.pid), fds + 12 + 1);
    close(hung);
}
