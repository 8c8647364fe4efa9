// Trainers without an event file: the daemon puts one into its state directory and says where.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "raw_client.h"
#include "trainer.h"

TestSuite(state_directory, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 60);

static struct raw_client attach_without_file(void) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, NULL);
    return client;
}

// One step, the end, and whatever the daemon says until it closes the connection.
static void train(struct raw_client *client) {
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(client, &snapshot);
    raw_client_send_close_run(client, 2, GRADIENTD__OUTCOME__SUCCESS);
    for (Gradientd__DaemonMessage *message; (message = raw_client_receive(client));) {
        cr_assert_eq(message->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
}

static void expect_whole(const char *path) {
    struct event_values values;
    event_values_read(path, &values);
    cr_expect(values.whole && values.starts == 1 && values.stops == 1, "%s", path);
    cr_expect_not_null(event_values_find(&values, "gradient/norm", 1));
    event_values_free(&values);
}

Test(state_directory, a_run_without_an_event_file_gets_one_there) {
    char start[512];
    size_t fds = scratch_count_fds(daemon_process.pid);
    snprintf(start, sizeof(start), "%s/%u/raw/events.out.tfevents.", daemon_process.state, (unsigned)geteuid());

    struct raw_client client = attach_without_file();
    cr_assert_eq(strncmp(client.event_path, start, strlen(start)), 0, "%s", client.event_path);
    snprintf(start, sizeof(start), ".%d.0.gradientd", (int)getpid());
    cr_assert(strstr(client.event_path, start), "%s is not this process's", client.event_path);
    train(&client);
    expect_whole(client.event_path);
    raw_client_close(&client);
    daemon_process_expect_fds(&daemon_process, fds);
}

Test(state_directory, two_live_runs_of_one_name_have_a_file_each) {
    struct raw_client first = attach_without_file(), second = attach_without_file();
    cr_assert_gt(strcmp(second.event_path, first.event_path), 0, "%s, %s", first.event_path, second.event_path);
    train(&second);
    train(&first);
    expect_whole(first.event_path);
    expect_whole(second.event_path);
    raw_client_close(&first);
    raw_client_close(&second);
}

Test(state_directory, a_client_that_brings_its_file_is_told_no_path) {
    char path[SCRATCH_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s/own.events", directory);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, path);
    cr_expect_str_eq(client.event_path, "");
    cr_expect(access(daemon_process.state, F_OK) < 0 && errno == ENOENT, "nobody needed a state directory");
    raw_client_close(&client);
}

// Attaches `memory` without an event file, which the daemon must refuse with an Error of event_file that says `says`.
static void expect_refused_consume(struct raw_client *client, int memory, Gradientd__ErrorCode code, const char *says) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = true;
    raw_client_send_attach(client, &attach, &memory, 1);
    close(memory);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR);
    cr_expect_eq(message->error->code, code, "%s", message->error->text);
    cr_expect_str_eq(message->error->field, "event_file");
    cr_expect(strstr(message->error->text, says), "%s", message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    cr_expect_null(raw_client_receive(client));
    raw_client_close(client);
}

Test(state_directory, a_file_that_cannot_be_created_costs_its_client_alone) {
    int file = open(daemon_process.state, O_WRONLY | O_CREAT | O_CLOEXEC, 0600); // in the directory's place
    cr_assert_geq(file, 0);
    close(file);
    size_t fds = scratch_count_fds(daemon_process.pid);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    int memory = raw_memory_new(client.total_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    expect_refused_consume(&client, memory, GRADIENTD__ERROR_CODE__INTERNAL, daemon_process.state);
    daemon_process_expect_fds(&daemon_process, fds);

    struct gradientd_options options = trainer_options(daemon_process.socket, directory, "other", NULL);
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 5);
    trainer_close(run);
}
