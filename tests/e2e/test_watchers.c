// Who is told of which runs and alerts, in how many answers; and watchers that stay, flood or do not read.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"
#include "gradientd/protocol.h"
#include "status_asking.h"
#include "trainer.h"

enum { USER = 54321, OTHER_USER = 54322, GROUP = 4321, OTHER_GROUP = 4322 };

TestSuite(watchers, .init = status_set_up, .fini = status_tear_down, .timeout = 120);

static struct gradientd_run *open_trainer(const char *name) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
    return trainer_open(&options);
}

// ---- who sees what

static void expect_names(const Gradientd__Status *status, const char *const *names, size_t n_names) {
    cr_assert_eq(status->n_runs, n_names, "%zu runs, not %zu", status->n_runs, n_names);
    for (size_t i = 0; i < n_names; i++)
        cr_expect_str_eq(status->runs[i]->run, names[i]);
}

Test(watchers, users_see_their_own_runs_and_alerts) {
    static const char *const all[] = {"root/first", "user/first", "root/second"};
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    status_start_with(NULL);
    struct raw_client runs[3] = {status_greet(), status_greet_as(USER, OTHER_GROUP, OTHER_GROUP), status_greet()};
    for (int i = 0; i < 3; i++) {
        status_attach_run(&runs[i], all[i]);
        status_send_step(&runs[i], 1, false);
    }

    watcher = status_greet_as(OTHER_USER, OTHER_GROUP, OTHER_GROUP);
    const Gradientd__Status *status = status_ask_after(&watcher, 0, 0);
    cr_expect_eq(status->n_runs, 0);
    cr_expect_eq(status->n_alerts, 0);
    cr_expect_not(status->sees_all);
    cr_expect_eq(status->last_alert_number, 3);
    cr_expect_eq(status->daemon->runs, 3);
    cr_assert_eq(status->n_users, 1);
    cr_expect_eq(status->users[0]->uid, OTHER_USER);
    cr_expect_eq(status->users[0]->connections, 1);
    cr_expect_eq(status->users[0]->runs, 0);
    raw_client_close(&watcher);

    watcher = status_greet_as(USER, OTHER_GROUP, OTHER_GROUP);
    status = status_ask_after(&watcher, 0, 0);
    expect_names(status, &all[1], 1);
    cr_expect_eq(status->runs[0]->uid, USER);
    cr_expect_eq(status->runs[0]->number, 2);
    cr_assert_eq(status->n_alerts, 1);
    cr_expect_eq(status->alerts[0]->number, 2);
    cr_expect_eq(status->alerts[0]->uid, USER);
    cr_expect_not(status->sees_all);
    cr_assert_eq(status->n_users, 1);
    cr_expect_eq(status->users[0]->runs, 1);
    raw_client_close(&watcher);

    watcher = status_greet_as(0, OTHER_GROUP, OTHER_GROUP);
    status = status_ask_after(&watcher, 0, 0);
    expect_names(status, all, 3);
    cr_expect(status->sees_all);
    cr_expect_eq(status->n_alerts, 3);
    cr_expect_eq(status->n_users, 2);
    raw_client_close(&watcher);
    for (int i = 0; i < 3; i++)
        raw_client_close(&runs[i]);
}

Test(watchers, the_admin_group_sees_all) {
    static const char *const all[] = {"root/first", "user/first"};
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    status_start_with("--admin-group", "4321", NULL);
    struct raw_client runs[2] = {status_greet(), status_greet_as(USER, OTHER_GROUP, OTHER_GROUP)};
    for (int i = 0; i < 2; i++)
        status_attach_run(&runs[i], all[i]);
    static const gid_t groups[][2] = {{GROUP, OTHER_GROUP}, {OTHER_GROUP, GROUP}};
    for (int i = 0; i < 2; i++) {
        watcher = status_greet_as(OTHER_USER, groups[i][0], groups[i][1]);
        const Gradientd__Status *status = status_ask(&watcher);
        cr_expect(status->sees_all);
        expect_names(status, all, 2);
        cr_expect_eq(status->n_users, 3);
        raw_client_close(&watcher);
    }
    watcher = status_greet_as(OTHER_USER, OTHER_GROUP, OTHER_GROUP);
    cr_expect_eq(status_ask(&watcher)->n_runs, 0);
    raw_client_close(&watcher);
    for (int i = 0; i < 2; i++)
        raw_client_close(&runs[i]);
}

// ---- alerts

Test(watchers, has_the_last_alerts_also_of_runs_that_have_ended) {
    status_start_with(NULL);
    watcher = status_greet();
    struct raw_client client = status_greet();
    status_attach_run(&client, "faulty/first");
    status_send_step(&client, 1, false);
    const Gradientd__Status *status = status_ask_after(&watcher, 0, 0);
    cr_assert(status->runs[0]->last_alert);
    cr_expect_str_eq(status->runs[0]->last_alert->rule, "non_finite");
    cr_expect(status->runs[0]->last_alert->onset);
    cr_expect_str_eq(status->runs[0]->last_alert->group, "weights");
    cr_assert_eq(status->runs[0]->n_alerts_on, 1);
    cr_expect_str_eq(status->runs[0]->alerts_on[0], "non_finite");
    for (uint64_t step = 2; step <= 17; step++)
        status_send_step(&client, step, true);
    status = status_ask_after(&watcher, 0, 1);
    cr_expect_eq(status->runs[0]->n_alerts_on, 0);
    cr_expect_not(status->runs[0]->last_alert->onset);
    cr_expect_eq(status->runs[0]->last_alert->step, 17);
    cr_assert_eq(status->n_alerts, 1, "the first was known already");
    raw_client_close(&client);
    status_wait_for(0, 0);

    status = status_ask_after(&watcher, 0, 0);
    cr_expect_eq(status->last_alert_number, 2);
    cr_assert_eq(status->n_alerts, 2);
    for (size_t i = 0; i < 2; i++) {
        const Gradientd__RecentAlert *recent = status->alerts[i];
        cr_expect_eq(recent->number, i + 1);
        cr_expect_str_eq(recent->run, "faulty/first");
        cr_expect_eq(recent->run_number, 1);
        cr_expect_eq(recent->uid, geteuid());
        cr_expect_eq(recent->pid, (uint32_t)getpid());
        cr_expect_float_eq(recent->time, (double)time(NULL), 10.0);
        cr_expect_str_eq(recent->alert->rule, "non_finite");
        cr_expect_eq(recent->alert->onset, i == 0);
        cr_expect_eq(recent->alert->step, i == 0 ? 1 : 17);
        cr_expect(recent->alert->text && strstr(recent->alert->text, "Step "), "%s", recent->alert->text);
    }
    cr_expect_eq(status_ask_after(&watcher, 0, 2)->n_alerts, 0);
    cr_expect_eq(status_ask_after(&watcher, 0, UINT64_MAX - 1)->n_alerts, 0);
    cr_expect_eq(status_ask(&watcher)->n_alerts, 0, "nobody asked for them");
    raw_client_close(&watcher);
}

static bool is_silent(const void *context) {
    (void)context;
    const Gradientd__Status *status = status_ask_after(&watcher, 0, 0);
    return status->n_alerts == 1;
}

Test(watchers, tells_of_silence) {
    status_start_with(NULL);
    watcher = status_greet();
    struct raw_client client = status_greet();
    status_attach_run(&client, "silent");
    for (uint64_t step = 1; step <= 20; step++)
        status_send_step(&client, step, true);
    cr_assert(scratch_wait_until(is_silent, NULL, STATUS_SOON), "no alert");
    const Gradientd__Status *status = status_ask_after(&watcher, 0, 0);
    const Gradientd__RunStatus *run = status->runs[0];
    cr_expect_str_eq(status->alerts[0]->alert->rule, "silence");
    cr_assert_eq(run->n_alerts_on, 1);
    cr_expect_str_eq(run->alerts_on[0], "silence");
    cr_expect_str_eq(run->last_alert->rule, "silence");
    cr_expect_geq(run->seconds_since_snapshot, 1.0);
    status_send_step(&client, 21, true);
    status = status_ask_after(&watcher, 0, 1);
    cr_expect_eq(status->runs[0]->n_alerts_on, 0);
    cr_expect_eq(status->n_alerts, 1);
    raw_client_close(&client);
    raw_client_close(&watcher);
}

// ---- many runs

enum { MANY = 300, LONG_NAME_BYTES = 1023, GROUP_NAME_BYTES = 255 };

// The longest name that a run can have, a different one for each `number`.
static void make_long_name(int number, char name[LONG_NAME_BYTES + 1]) {
    memset(name, 'r', LONG_NAME_BYTES);
    name[LONG_NAME_BYTES] = '\0';
    for (int at = 255; at < LONG_NAME_BYTES; at += 256)
        name[at] = '/';
    for (int digit = 3; digit >= 0; digit--, number /= 10)
        name[digit] = (char)('0' + number % 10);
}

// With a group whose name takes three times as much as markdown, and an alert that has it.
static void attach_large_run(struct raw_client *client, int number) {
    char name[LONG_NAME_BYTES + 1], group[GROUP_NAME_BYTES];
    struct raw_open_run open_run;
    make_long_name(number, name);
    memset(group, '*', sizeof(group));
    raw_open_run_init(&open_run);
    open_run.message.run = name;
    open_run.message.groups = 0;
    open_run.table_bytes = 0;
    raw_open_run_add_group(&open_run, group, sizeof(group), RAW_NUMEL, 0, 0);
    raw_client_attach_inline(client, &open_run, NULL);
    status_send_step(client, 1, false);
}

// Every run comes once, in order, however many answers that takes; no answer is too large.
static void expect_all_runs(uint64_t alerts_after, int runs) {
    uint64_t after = 0;
    int seen = 0;
    for (bool more = true; more;) {
        const Gradientd__Status *status = status_ask_after(&watcher, after, alerts_after);
        cr_assert_gt(status->n_runs, 0);
        cr_assert_leq(status_answer_bytes(), GRADIENTD_MESSAGE_BYTES_MAX);
        for (size_t i = 0; i < status->n_runs; i++) {
            char name[LONG_NAME_BYTES + 1];
            make_long_name(seen++, name);
            cr_assert_str_eq(status->runs[i]->run, name);
            cr_assert_eq(status->runs[i]->number, (uint64_t)seen);
            after = status->runs[i]->number;
        }
        more = status->more_runs;
    }
    cr_expect_eq(seen, runs);
}

Test(watchers, tells_hundreds_of_runs_in_pages) {
    static struct raw_client runs[MANY];
    status_start_with("--runs-per-user", "1000", "--connections-per-user", "1000", "--fds-per-user", "5000",
                      "--memory-per-user", "100%", NULL);
    watcher = status_greet();
    for (int i = 0; i < MANY; i++) {
        runs[i] = status_greet();
        attach_large_run(&runs[i], i);
    }
    cr_expect_eq(status_ask(&watcher)->n_runs, 256);
    expect_all_runs(UINT64_MAX, MANY);
    const Gradientd__Status *status = status_ask_after(&watcher, 0, 0);
    cr_expect_eq(status->last_alert_number, MANY);
    cr_assert_eq(status->n_alerts, 256);
    cr_expect_eq(status->alerts[0]->number, MANY - 256 + 1, "those before are gone, as the number says");
    cr_expect_eq(status->alerts[255]->number, MANY);
    cr_expect_lt(status_ask_after(&watcher, 0, 0)->n_runs, 256, "alerts take room too");
    expect_all_runs(0, MANY);
    for (int i = 0; i < MANY; i++)
        raw_client_close(&runs[i]);
    raw_client_close(&watcher);
}

// ---- watchers

// The daemon looks at the deadline when Hello's was, after 5 s.
Test(watchers, a_watcher_lives_as_long_as_it_asks) {
    status_start_with("--attach-timeout", "1", NULL);
    watcher = status_greet();
    double begun = scratch_now();
    while (scratch_now() - begun < 6.0) {
        cr_assert(status_ask(&watcher)->daemon);
        cr_assert_not(scratch_wait_readable(watcher.fd, 0.3), "dropped after %.1f s", scratch_now() - begun);
    }
    Gradientd__DaemonMessage *error = raw_client_receive_error(&watcher, "watcher");
    cr_expect_str_eq(error->error->field, "attach");
    gradientd__daemon_message__free_unpacked(error, NULL);
    raw_client_close(&watcher);
}

// Requests are sent in batches, of which all answers fit into the socket.
Test(watchers, a_watcher_that_floods_is_refused) {
    enum { A_SECOND_S = 1000, BATCH = 100, TRIES = 20 * A_SECOND_S };
    status_start_with(NULL);
    watcher = status_greet();
    int answers = 0;
    Gradientd__DaemonMessage *message = NULL;
    while (answers < TRIES) {
        if (answers % BATCH == 0)
            for (int i = 0; i < BATCH; i++)
                raw_client_send_status_request(&watcher, 0, UINT64_MAX);
        message = raw_client_receive(&watcher);
        if (!message || message->message_case != GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS)
            break;
        gradientd__daemon_message__free_unpacked(message, NULL);
        answers++;
    }
    cr_expect_geq(answers, A_SECOND_S - 1);
    cr_assert_lt(answers, TRIES, "it goes on and on");
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR);
    cr_expect_str_eq(message->error->field, "messages");
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&watcher);
}

// What the daemon has accepted, in the next answer.
static uint64_t receive_accepted(struct raw_client *client) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS);
    uint64_t accepted = message->status->daemon->connections_accepted;
    gradientd__daemon_message__free_unpacked(message, NULL);
    return accepted;
}

// A client that comes behind a thousand requests is accepted between two of them.
Test(watchers, a_burst_of_requests_holds_up_nobody) {
    enum { BURST = 900 };                                             // that a user may send at once
    static const uint8_t frame[] = {2, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0}; // of a StatusRequest without a field
    static uint8_t frames[BURST][sizeof(frame)];
    status_start_with(NULL);
    watcher = status_greet();
    cr_assert_eq(status_ask(&watcher)->daemon->connections_accepted, 1);
    cr_assert_eq(kill(daemon_process.pid, SIGSTOP), 0);
    for (int i = 0; i < BURST; i++)
        memcpy(frames[i], frame, sizeof(frame));
    raw_client_send_bytes(&watcher, frames, sizeof(frames), NULL, 0);
    struct raw_client other = raw_client_connect(daemon_process.socket);
    cr_assert_eq(kill(daemon_process.pid, SIGCONT), 0);
    for (int i = 1; i < BURST; i++)
        receive_accepted(&watcher);
    cr_expect_eq(receive_accepted(&watcher), 2, "it had to wait for all answers");
    raw_client_close(&other);
    raw_client_close(&watcher);
}

static bool are_connections(const void *context) {
    const uint32_t *connections = context;
    return status_ask(&watcher)->daemon->connections == *connections;
}

// It is dropped once more is unread than the daemon keeps; nobody else is disturbed.
Test(watchers, a_watcher_that_never_reads_is_dropped) {
    enum { LARGE = 20, KEPT_BYTES = 1 << 20, SOCKET_BYTES = 1 << 20 };
    struct raw_client large[LARGE];
    status_start_with(NULL);
    struct gradientd_run *run = open_trainer("beside");
    watcher = status_greet();
    for (int i = 0; i < LARGE; i++) {
        large[i] = status_greet();
        attach_large_run(&large[i], i);
    }
    status_ask(&watcher);
    size_t answer_bytes = status_answer_bytes();
    struct raw_client deaf = status_greet();
    size_t sent = 0;
    for (; sent < KEPT_BYTES / 2 / answer_bytes; sent++)
        raw_client_send_status_request(&deaf, 0, UINT64_MAX);
    trainer_submit_steps(run, 1, 20);
    cr_expect_eq(status_wait_for(1 + LARGE, 20)->daemon->connections, 3 + LARGE, "half of that may wait");
    for (; sent < (KEPT_BYTES + SOCKET_BYTES) / answer_bytes; sent++)
        raw_client_send_status_request(&deaf, 0, UINT64_MAX);
    uint32_t others = 2 + LARGE;
    cr_expect(scratch_wait_until(are_connections, &others, STATUS_SOON), "it is still served");
    trainer_submit_steps(run, 21, 40);
    status_wait_for(1 + LARGE, 40);
    trainer_close(run);
    raw_client_close(&deaf);
    for (int i = 0; i < LARGE; i++)
        raw_client_close(&large[i]);
    raw_client_close(&watcher);
}
