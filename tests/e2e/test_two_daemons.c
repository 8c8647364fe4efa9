// Two daemons and one run: its memory's lock says whose it is. Nobody takes it from a daemon that lives, stopped or
// not; a dead one's is free.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "raw_client.h"

static const double PATIENCE = 20.0; // seconds

static char other_directory[SCRATCH_PATH_BYTES];
static struct daemon_process other;

static void set_up(void) {
    fixture_set_up();
    scratch_make(other_directory);
    daemon_process_start(&other, other_directory);
}

static void tear_down(void) {
    daemon_process_stop(&other);
    scratch_remove(other_directory);
    fixture_tear_down();
}

TestSuite(two_daemons, .init = set_up, .fini = tear_down, .timeout = 120);

// Asks the other daemon to go on with the run of `client`. Returns its answer to Attach, which the caller frees.
static Gradientd__DaemonMessage *attach_to_other(const struct raw_client *client, struct raw_client *ret_client) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    int fds[] = {dup(client->memory_fd), open(event_path, O_WRONLY | O_CLOEXEC)};
    *ret_client = raw_client_connect(other.socket);
    raw_client_advance(ret_client, RAW_LAID_OUT, NULL);
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    raw_client_send_attach(ret_client, &attach, fds, 2);
    ret_client->memory_fd = fds[0];
    close(fds[1]);
    Gradientd__DaemonMessage *answer = raw_client_receive(ret_client);
    cr_assert(answer);
    return answer;
}

static void expect_refused(const struct raw_client *client) {
    struct raw_client second;
    Gradientd__DaemonMessage *answer = attach_to_other(client, &second);
    cr_assert_eq(answer->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR);
    cr_expect_eq(answer->error->code, GRADIENTD__ERROR_CODE__OWNED);
    gradientd__daemon_message__free_unpacked(answer, NULL);
    raw_client_expect_end(&second, "a second daemon");
    raw_client_close(&second);
}

// What the other daemon has refused it still holds for a moment, which is OWNED as well.
static void take_over(const struct raw_client *client, struct raw_client *ret_client) {
    bool attached = false;
    for (double start = scratch_now(); !attached && scratch_now() - start < PATIENCE;) {
        Gradientd__DaemonMessage *answer = attach_to_other(client, ret_client);
        attached = answer->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED;
        cr_assert(attached || (answer->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR &&
                               answer->error->code == GRADIENTD__ERROR_CODE__OWNED));
        cr_expect(!attached || answer->attached->committed_sequence == 4);
        gradientd__daemon_message__free_unpacked(answer, NULL);
        if (!attached)
            raw_client_close(ret_client);
    }
    cr_assert(attached, "the run of a dead daemon is not free");
}

Test(two_daemons, a_run_is_the_first_ones_until_it_dies) {
    struct raw_client client = raw_client_connect(daemon_process.socket), second;
    struct event_values values;

    raw_client_advance(&client, RAW_ATTACHED, event_path);
    for (uint32_t n = 1; n <= 3; n++)
        raw_client_commit_step(&client, n);
    expect_refused(&client);
    daemon_process_freeze(&daemon_process);
    expect_refused(&client);
    daemon_process_thaw(&daemon_process);
    raw_client_commit_step(&client, 4);
    expect_refused(&client);

    daemon_process_kill(&daemon_process);
    take_over(&client, &second);
    second.memory = mmap(NULL, second.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, second.memory_fd, 0);
    cr_assert_neq(second.memory, MAP_FAILED);
    raw_client_commit_step(&second, 5);
    raw_client_send_close_run(&second, 6, GRADIENTD__OUTCOME__SUCCESS);
    cr_expect(scratch_wait_until(event_values_ended, event_path, PATIENCE));
    event_values_read(event_path, &values);
    for (int64_t step = 1; step <= 5; step++)
        cr_expect(event_values_find(&values, "gradient/norm", step), "no step %lld", (long long)step);
    event_values_free(&values);
    raw_client_close(&second);
    raw_client_close(&client);
}
