// What a client that asks is told of the daemon and its runs: values against what trainers did.
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"
#include "status_asking.h"
#include "trainer.h"

TestSuite(status, .init = status_set_up, .fini = status_tear_down, .timeout = 120);

static uint64_t file_bytes(const char *path) {
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s: %s", path, strerror(errno));
    return (uint64_t)status.st_size;
}

// ---- values

static struct gradientd_run *open_trainer(const char *name) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
    options.thresholds.cosine_mean = -(double)INFINITY; // the small trainer's gradients are no training's
    options.thresholds.silence_intervals = (double)INFINITY;
    return trainer_open(&options);
}

Test(status, of_a_daemon_without_runs) {
    status_start_with(NULL);
    watcher = status_greet();
    const Gradientd__Status *status = status_ask(&watcher);
    const Gradientd__DaemonStatus *daemon = status->daemon;
    cr_expect_eq(status->n_runs, 0);
    cr_expect_not(status->more_runs);
    cr_expect(status->sees_all, "the daemon's own user");
    cr_expect_eq(status->last_alert_number, 0);
    cr_expect_str_eq(daemon->version, GD_VERSION);
    cr_expect_eq(daemon->pid, (uint32_t)daemon_process.pid);
    cr_expect_eq(daemon->uid, geteuid());
    cr_expect_float_eq(daemon->started, (double)time(NULL), 10.0);
    cr_expect_eq(daemon->workers, 2);
    cr_expect(daemon->kernels && *daemon->kernels);
    cr_expect_str_eq(daemon->state_directory, daemon_process.state);
    cr_expect_eq(daemon->limits->connections, 64);
    cr_expect_eq(daemon->limits->runs, 64);
    cr_expect_eq(daemon->limits->fds, 256);
    cr_expect_gt(daemon->limits->memory_bytes, 1 << 20);
    cr_expect_eq(daemon->messages_per_second, 1000000);
    cr_expect_eq(daemon->runs, 0);
    cr_expect_eq(daemon->connections, 1);
    cr_expect_eq(daemon->connections_accepted, 1);
    cr_expect(daemon->has_snapshots && daemon->snapshots == 0 && daemon->skipped == 0 && daemon->element_bytes == 0);
    cr_expect(daemon->has_queued && daemon->queued == 0 && daemon->analysis_seconds == 0.0);
    cr_expect(daemon->has_event_bytes && daemon->event_bytes == 0 && daemon->write_errors == 0);
    cr_expect_gt(daemon->resident_bytes, 1 << 20);
    cr_assert_eq(daemon->n_refused, 8);
    for (int code = 1; code <= 8; code++)
        cr_expect_eq(status_refused(daemon, (Gradientd__ErrorCode)code), 0);
    cr_assert_eq(status->n_users, 1);
    cr_expect_eq(status->users[0]->uid, geteuid());
    cr_expect_eq(status->users[0]->connections, 1);
    cr_expect_eq(status->users[0]->runs, 0);
    raw_client_close(&watcher);
}

Test(status, of_a_run_is_what_its_trainer_did) {
    status_start_with(NULL);
    watcher = status_greet();
    struct gradientd_run *run = open_trainer("values/first");
    char path[512];
    snprintf(path, sizeof(path), "%s", gradientd_event_path(run));
    double opened = scratch_now();
    const Gradientd__RunStatus *told = status_wait_for(1, 0)->runs[0];
    cr_expect_not(told->has_step, "no snapshot has come");
    cr_expect_not(told->has_seconds_since_snapshot);
    cr_expect_not(told->has_snapshots_per_second);
    cr_expect_eq(told->snapshots, 0);

    trainer_submit_steps(run, 1, 40);
    const Gradientd__Status *status = status_wait_for(1, 40);
    double now = scratch_now();
    told = status->runs[0];
    cr_expect_str_eq(told->run, "values/first");
    cr_expect_eq(told->uid, geteuid());
    cr_expect_eq(told->pid, (uint32_t)getpid());
    cr_expect_eq(told->number, 1);
    cr_expect_eq(told->step, 40);
    cr_expect_eq(told->received_sequence, 40);
    cr_expect_eq(told->snapshots, 40);
    cr_expect(told->has_skipped && told->skipped == 0);
    cr_expect_eq(told->groups, 2);
    cr_expect_eq(told->elements, TRAINER_NUMEL);
    cr_expect_gt(told->memory_bytes, 1 << 20);
    cr_expect_eq(told->event_bytes, file_bytes(path));
    cr_expect_str_eq(told->event_path, path);
    cr_expect(told->has_finishing && !told->finishing);
    cr_expect(told->attached_seconds >= 0.0 && told->attached_seconds <= now - opened + 1.0);
    cr_expect(told->seconds_since_snapshot >= 0.0 && told->seconds_since_snapshot <= told->attached_seconds);
    cr_expect_null(told->last_alert);
    cr_expect_eq(told->n_alerts_on, 0);

    const Gradientd__DaemonStatus *daemon = status->daemon;
    cr_expect_eq(daemon->runs, 1);
    cr_expect_eq(daemon->connections, 2);
    cr_expect_eq(daemon->connections_accepted, 2);
    cr_expect_eq(daemon->snapshots, 40);
    cr_expect_eq(daemon->element_bytes, 40 * TRAINER_NUMEL * sizeof(float));
    cr_expect_eq(daemon->event_bytes, told->event_bytes);
    cr_expect(daemon->analysis_seconds > 0.0 && daemon->analysis_seconds < now - opened + 1.0);
    cr_assert_eq(status->n_users, 1);
    cr_expect_eq(status->users[0]->connections, 2);
    cr_expect_eq(status->users[0]->runs, 1);
    cr_expect_geq(status->users[0]->fds, 2);
    cr_expect_geq(status->users[0]->memory_bytes, told->memory_bytes);

    trainer_close(run);
    status = status_wait_for(0, 0);
    cr_expect_eq(status->daemon->runs, 0);
    cr_expect_eq(status->daemon->snapshots, 40, "what was counted stays");
    cr_expect_eq(status->daemon->event_bytes, file_bytes(path));
    raw_client_close(&watcher);
}

Test(status, counts_skipped_steps_and_all_streams_bytes) {
    static const struct gradientd_scalar loss = {"loss", 1.0f};
    status_start_with(NULL);
    watcher = status_greet();
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, 1, 4, 0);
    snapshot.message.has_skipped = true;
    snapshot.message.skipped = 3;
    raw_client_send_snapshot(&client, &snapshot);
    raw_client_send_scalars(&client, 2, 4, 1.7e9, loss.tag);
    const Gradientd__Status *status = status_wait_for(1, 2);
    cr_expect_eq(status->runs[0]->skipped, 3);
    cr_expect_eq(status->runs[0]->step, 4);
    cr_expect_eq(status->runs[0]->snapshots, 1);
    cr_expect_eq(status->daemon->skipped, 3);
    cr_expect_eq(status->daemon->snapshots, 1, "Scalars are none");
    cr_expect_eq(status->daemon->element_bytes, RAW_NUMEL * sizeof(float));
    raw_client_close(&client);
    raw_client_close(&watcher);
}

// What a client tells is its own affair, but a sum over all of them never falls.
Test(status, a_client_that_tells_less_takes_nothing_away) {
    static const uint64_t told[] = {5, 1, UINT64_MAX, 0, 1};
    status_start_with(NULL);
    watcher = status_greet();
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    uint64_t before = 0;
    for (uint32_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        struct raw_snapshot snapshot;
        raw_snapshot_init(&snapshot, 1 + i, 1 + i, i);
        snapshot.message.has_skipped = true;
        snapshot.message.skipped = told[i];
        raw_client_send_snapshot(&client, &snapshot);
        const Gradientd__Status *status = status_wait_for(1, 1 + i);
        cr_expect_eq(status->runs[0]->skipped, told[i]);
        cr_expect_geq(status->daemon->skipped, before, "after %llu: %llu, before %llu", (unsigned long long)told[i],
                      (unsigned long long)status->daemon->skipped, (unsigned long long)before);
        before = status->daemon->skipped;
    }
    raw_client_close(&client);
    raw_client_close(&watcher);
}

// The next daemon goes on with the run: the run's own counts go on, the daemon's begin anew.
Test(status, of_a_run_that_was_gone_on_with) {
    struct gradientd_options options;
    status_start_with(NULL);
    watcher = status_greet();
    options = trainer_options(daemon_process.socket, directory, "resumed", NULL);
    options.thresholds.norm_spike_sd = options.thresholds.oscillation = (double)INFINITY;
    struct gradientd_run *run = trainer_open(&options);
    float gradient[TRAINER_NUMEL] = {0.0f, NAN};
    struct gradientd_step step = trainer_step(1);
    cr_assert_eq(trainer_submit(run, &step, gradient), GRADIENTD_OK);
    trainer_submit_steps(run, 2, 10);
    status_wait_for(1, 10);
    daemon_process_kill(&daemon_process);
    raw_client_close(&watcher);
    status_start_with(NULL);
    watcher = status_greet();
    trainer_submit_steps(run, 11, 15);
    const Gradientd__Status *status = status_wait_for(1, 15);
    cr_expect_eq(status->runs[0]->snapshots, 15);
    cr_expect_eq(status->runs[0]->step, 15);
    cr_expect_eq(status->daemon->snapshots, 5);
    cr_expect_lt(status->daemon->event_bytes, status->runs[0]->event_bytes);
    cr_assert(status->runs[0]->last_alert);
    cr_expect_str_eq(status->runs[0]->last_alert->rule, "non_finite");
    cr_expect_eq(status->runs[0]->last_alert->step, 1);
    cr_assert_eq(status->runs[0]->n_alerts_on, 1);
    cr_expect_str_eq(status->runs[0]->alerts_on[0], "non_finite");
    trainer_close(run);
    raw_client_close(&watcher);
}

static void limit_files(rlim_t bytes) {
    const struct rlimit limit = {bytes, RLIM_INFINITY};
    cr_assert_eq(prlimit(daemon_process.pid, RLIMIT_FSIZE, &limit, NULL), 0, "%s", strerror(errno));
}

static bool has_failed_to_write(const void *context) {
    (void)context;
    return status_ask(&watcher)->daemon->write_errors > 0;
}

// Its file can grow no more when it is closed.
Test(status, of_a_closed_run_whose_file_is_not_written_yet) {
    struct raw_snapshot snapshot;
    status_start_with(NULL);
    watcher = status_greet();
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    uint64_t bytes = status_wait_for(1, 0)->runs[0]->event_bytes;
    limit_files(bytes);
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(&client, &snapshot);
    raw_client_send_close_run(&client, 2, GRADIENTD__OUTCOME__SUCCESS);
    cr_assert(scratch_wait_until(has_failed_to_write, NULL, STATUS_SOON));
    const Gradientd__Status *status = status_ask(&watcher);
    cr_assert_eq(status->n_runs, 1);
    cr_expect(status->runs[0]->finishing);
    cr_expect_eq(status->runs[0]->committed_sequence, 2);
    cr_expect_eq(status->runs[0]->event_bytes, bytes);
    cr_expect_gt(status->runs[0]->event_bytes_waiting, 0);
    cr_expect_str_eq(status->runs[0]->event_path, event_path);
    cr_expect_eq(status->daemon->runs, 1);
    cr_expect_eq(status->daemon->event_bytes, bytes);
    limit_files(RLIM_INFINITY);
    cr_expect_eq(status_wait_for(0, 0)->daemon->event_bytes, file_bytes(event_path));
    raw_client_close(&client);
    raw_client_close(&watcher);
}

// Goes on in a new pid namespace, the first of it; the process that was called ends with it.
static void enter_namespace(void) {
    int status;
    if (unshare(CLONE_NEWPID) < 0)
        _exit(EXIT_FAILURE);
    pid_t child = fork();
    if (child > 0) {
        waitpid(child, &status, 0);
        _exit(EXIT_SUCCESS);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

Test(status, of_a_trainer_in_another_pid_namespace_has_no_pid) {
    char socket[DAEMON_PATH_BYTES];
    if (geteuid() != 0)
        cr_skip("only root makes pid namespaces");
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    daemon_process_launch(&daemon_process, directory, (const char *const[]){"--socket", socket, NULL}, enter_namespace);
    if (!daemon_process_comes_up(&daemon_process)) {
        daemon_process_wait_end(&daemon_process);
        daemon_process.pid = 0;
        cr_skip("pid namespaces cannot be made here");
    }
    watcher = status_greet();
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    const Gradientd__Status *status = status_wait_for(1, 0);
    cr_expect_not(status->runs[0]->has_pid);
    cr_expect_eq(status->runs[0]->uid, geteuid());
    cr_expect_eq(status->daemon->pid, 1, "its own, there");
    cr_expect_str_eq(status->runs[0]->event_path, event_path);
    raw_client_close(&client);
    raw_client_close(&watcher);
    daemon_process_kill(&daemon_process);
    daemon_process.pid = 0;
}

// ---- order

Test(status, goes_before_a_run_on_the_same_connection) {
    status_start_with(NULL);
    watcher = status_greet();
    struct raw_client client = status_greet();
    struct raw_open_run open_run;
    for (int i = 0; i < 3; i++)
        cr_expect_eq(status_ask(&client)->n_runs, 0);
    raw_open_run_init(&open_run);
    raw_client_attach(&client, &open_run, event_path);
    raw_client_commit_step(&client, 1);
    cr_expect_eq(status_wait_for(1, 1)->runs[0]->number, 1);
    raw_client_close(&client);
    raw_client_close(&watcher);
}

Test(status, of_two_requests_at_once_are_two_answers) {
    status_start_with(NULL);
    watcher = status_greet();
    raw_client_send_status_request(&watcher, 0, 0);
    raw_client_send_status_request(&watcher, 0, 0);
    for (int i = 0; i < 2; i++) {
        Gradientd__DaemonMessage *message = raw_client_receive(&watcher);
        cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS);
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
    raw_client_close(&watcher);
}

// ---- refusals

Test(status, counts_what_was_refused_by_reason) {
    status_start_with("--connections-per-user", "3", "--allow-users", "daemon", NULL);
    watcher = status_greet();
    for (int i = 0; i < 2; i++) {
        struct raw_client client = raw_client_connect(daemon_process.socket);
        raw_client_say_hello(&client, 2);
        gradientd__daemon_message__free_unpacked(raw_client_receive_error(&client, "protocol_version"), NULL);
        raw_client_close(&client);
    }
    struct raw_client client = status_greet();
    raw_client_say_hello(&client, 1);
    gradientd__daemon_message__free_unpacked(raw_client_receive_error(&client, "message"), NULL);
    raw_client_close(&client);

    struct raw_client others[2] = {status_greet(), status_greet()};
    client = raw_client_connect(daemon_process.socket);
    gradientd__daemon_message__free_unpacked(raw_client_receive_error(&client, "connections"), NULL);
    raw_client_close(&client);
    const Gradientd__DaemonStatus *daemon = status_ask(&watcher)->daemon;
    cr_expect_eq(status_refused(daemon, GRADIENTD__ERROR_CODE__UNSUPPORTED), 2);
    cr_expect_eq(status_refused(daemon, GRADIENTD__ERROR_CODE__PROTOCOL), 1);
    cr_expect_eq(status_refused(daemon, GRADIENTD__ERROR_CODE__QUOTA), 1);
    cr_expect_eq(status_refused(daemon, GRADIENTD__ERROR_CODE__FORBIDDEN), 0);
    cr_expect_eq(daemon->connections, 3);
    cr_expect_eq(daemon->connections_accepted, 7);
    for (int i = 0; i < 2; i++)
        raw_client_close(&others[i]);
    raw_client_close(&watcher);
}
