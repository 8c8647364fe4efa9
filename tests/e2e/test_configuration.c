// The daemon starts with its configuration, and reads it again: SIGHUP changes what a client that comes then finds,
// costs no run anything, and leaves everything as it was where the new configuration is wrong.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "configured.h"
#include "fixture.h"
#include "gradientd/protocol.h"
#include "raw_client.h"
#include "trainer.h"

enum {
    USER = 54321,
    GROUP = 4321,
    OTHER_USER = 54322,
    STEPS = 20, // of the run beside the reloads
    LOADED_TRAINERS = 4,
    LOADED_RELOADS = 120,
    STEPS_A_RELOAD = 10,
    LONG_DROP_INS = 60,
    LONG_DROP_IN_LINES = 30000,
};

static const double PATIENT = 20.0;

static unsigned reloads; // that the daemon was asked for

static void set_up(void) {
    configured_set_up();
    reloads = 0;
}

TestSuite(configuration, .init = set_up, .fini = fixture_tear_down, .timeout = 240);

// ---- what the daemon says

static bool is_reloaded(const void *context) {
    (void)context;
    return count_in_log("configuration read again: ") + count_in_log("configuration not taken") >= reloads;
}

// SIGHUP, and waits until it has had its effect.
static void reload(void) {
    reloads++;
    cr_assert_eq(kill(daemon_process.pid, SIGHUP), 0);
    cr_assert(scratch_wait_until(is_reloaded, NULL, PATIENT), "reload %u did not come", reloads);
}

static void reload_and_expect(const char *says) {
    unsigned before = count_in_log(says);
    reload();
    if (count_in_log(says) == before + 1)
        return;
    struct scratch_bytes log = scratch_read(daemon_process.log);
    cr_assert_fail("not \"%s\" but: %.*s", says, (int)log.bytes, (char *)log.data);
}

// ---- a run that must not notice

static struct gradientd_run *open_trainer(const char *name, char path[512]) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    return run;
}

static struct gradientd_run *victim;
static char victim_path[512];

static void start_victim(void) {
    victim = open_trainer("victim", victim_path);
    trainer_submit_steps(victim, 1, STEPS / 2);
}

// Its file is that of a run which a daemon without reloads has served.
static void finish_victim(void) {
    char alone[512];
    trainer_submit_steps(victim, STEPS / 2 + 1, STEPS);
    trainer_close(victim);
    daemon_process_stop(&daemon_process);
    daemon_process_start(&daemon_process, directory);
    struct gradientd_run *run = open_trainer("alone", alone);
    trainer_submit_steps(run, 1, STEPS);
    trainer_close(run);
    scratch_expect_same(victim_path, alone);
}

// ---- who is refused

static struct raw_client connect_as(uid_t user, gid_t group) {
    cr_assert_eq(setgroups(0, NULL), 0);
    cr_assert(setegid(group) == 0 && seteuid(user) == 0);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    cr_assert(seteuid(0) == 0 && setegid(0) == 0);
    return client;
}

static void expect_error(struct raw_client *client, const char *field, const char *says) {
    Gradientd__DaemonMessage *message = raw_client_receive_error(client, field);
    cr_expect_str_eq(message->error->field, field, "%s", message->error->text);
    cr_expect(strstr(message->error->text, says), "\"%s\" does not say \"%s\"", message->error->text, says);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(client, field);
    raw_client_close(client);
}

static void expect_admitted(struct raw_client client) {
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_close(&client);
}

// A client that was greeted goes on to the Layout of a run.
static void expect_laid_out(struct raw_client *client) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    raw_client_send_open_run(client, &open_run);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(client);
}

static struct raw_client connect_raw(enum raw_stage stage) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, stage, event_path);
    return client;
}

// ---- live keys

Test(configuration, reload_changes_who_is_served) {
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    write_config("[socket]\nsocket-mode = 0777\n");
    start_configured();
    expect_admitted(connect_as(USER, GROUP));
    write_config("[socket]\nsocket-mode = 0777\n[access]\nallow-users = %d\n", OTHER_USER);
    struct raw_client there = connect_as(USER, GROUP);
    raw_client_advance(&there, RAW_WELCOME, NULL);
    reload_and_expect("configuration read again: changed: allow-users\n");
    struct raw_client refused = connect_as(USER, GROUP);
    expect_error(&refused, "user", "user is 54321, whom this daemon does not serve");
    expect_admitted(connect_as(OTHER_USER, GROUP));
    expect_laid_out(&there); // who came before stays

    write_config("[socket]\nsocket-mode = 0777\n[access]\nallow-groups = %d\n", GROUP);
    reload_and_expect("configuration read again: changed: allow-users, allow-groups\n");
    expect_admitted(connect_as(USER, GROUP));
    refused = connect_as(OTHER_USER, OTHER_USER);
    expect_error(&refused, "user", "user is 54322, whom this daemon does not serve");
    write_config("[socket]\nsocket-mode = 0777\n");
    reload_and_expect("configuration read again: changed: allow-groups\n");
    expect_admitted(connect_as(OTHER_USER, OTHER_USER));
}

static bool sees_all(uid_t user, gid_t group) {
    struct raw_client client = connect_as(user, group);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    Gradientd__DaemonMessage *message = raw_client_ask_status(&client, 0, UINT64_MAX);
    bool all = message->status->sees_all;
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
    return all;
}

Test(configuration, reload_changes_who_sees_all_runs) {
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    write_config("[socket]\nsocket-mode = 0777\n");
    start_configured();
    cr_expect_not(sees_all(USER, GROUP));
    write_config("[socket]\nsocket-mode = 0777\n[access]\nadmin-group = %d\n", GROUP);
    reload_and_expect("configuration read again: changed: admin-group\n");
    cr_expect(sees_all(USER, GROUP));
    cr_expect_not(sees_all(USER, OTHER_USER));
    write_config("[socket]\nsocket-mode = 0777\n");
    reload_and_expect("configuration read again: changed: admin-group\n");
    cr_expect_not(sees_all(USER, GROUP));
}

static bool is_there(const void *path) {
    return access(path, F_OK) == 0;
}

// It would be an hour until then.
Test(configuration, reload_changes_how_often_metrics_are_written) {
    char path[CONFIG_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/metrics.prom", directory);
    write_config("[metrics]\nmetrics-file = %s\nmetrics-interval = 3600\n", path);
    start_configured();
    cr_assert(scratch_wait_until(is_there, path, PATIENT), "no metrics");
    write_config("[metrics]\nmetrics-file = %s\nmetrics-interval = 1\n", path);
    reload_and_expect("configuration read again: changed: metrics-interval\n");
    for (int i = 0; i < 3; i++) { // the first may be what is written at once
        cr_assert(scratch_wait_until(is_there, path, PATIENT), "not written the %d. time", i);
        unlink(path);
    }
}

Test(configuration, reload_changes_what_a_user_may_have) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    write_config("[limits]\n");
    start_configured();
    start_victim();

    write_config("[limits]\nconnections-per-user = 1\n");
    reload_and_expect("configuration read again: changed: connections-per-user\n");
    struct raw_client client = raw_client_connect(daemon_process.socket);
    expect_error(&client, "connections", "uid 0 holds 1 already, the limit is 1");

    write_config("[limits]\nruns-per-user = 1\n");
    reload_and_expect("configuration read again: changed: connections-per-user, runs-per-user\n");
    client = connect_raw(RAW_WELCOME);
    raw_client_send_open_run(&client, &open_run);
    expect_error(&client, "runs", "uid 0 holds 1 already, the limit is 1");

    write_config("[limits]\nfds-per-user = 5\n"); // the victim has 3, and who brings some needs room for 3
    reload_and_expect("configuration read again: changed: runs-per-user, fds-per-user\n");
    client = connect_raw(RAW_LAID_OUT);
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = true;
    raw_client_send_attach(&client, &attach, (const int[]){STDERR_FILENO}, 1);
    expect_error(&client, "fds", "fds is 3, uid 0 holds 3 already, the limit is 5");

    write_config("[limits]\nmemory-per-user = 1M\n");
    reload_and_expect("configuration read again: changed: fds-per-user, memory-per-user\n");
    client = connect_raw(RAW_WELCOME);
    raw_client_send_open_run(&client, &open_run);
    expect_error(&client, "memory", "the limit is 1048576");
    write_config("[limits]\n");
    reload_and_expect("configuration read again: changed: memory-per-user\n");
    client = connect_raw(RAW_ATTACHED);
    raw_client_close(&client);
    finish_victim();
}

// The run sends more than the new limit, which is not its own.
Test(configuration, reload_changes_how_much_a_new_client_may_send) {
    write_config("\n");
    start_configured();
    start_victim();
    write_config("[limits]\nmessages-per-second = 1\n");
    reload_and_expect("configuration read again: changed: messages-per-second\n");
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_say_hello(&client, GRADIENTD_PROTOCOL_VERSION);
    expect_error(&client, "messages", "uid 0 sent more than 1 within a second");
    finish_victim();
}

Test(configuration, reload_changes_how_long_a_new_client_may_take) {
    write_config("\n");
    start_configured();
    start_victim();
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    struct raw_client before = connect_raw(RAW_WELCOME);
    write_config("[limits]\nattach-timeout = 1\n");
    reload_and_expect("configuration read again: changed: attach-timeout\n");
    struct raw_client after = connect_raw(RAW_WELCOME);
    write_config("[limits]\nattach-timeout = 9\n");
    reload_and_expect("configuration read again: changed: attach-timeout\n");
    expect_error(&after, "attach", ", the limit is 1000"); // as it was when it came
    raw_client_attach(&before, &open_run, event_path);
    raw_client_close(&before);
    finish_victim();
}

Test(configuration, reload_changes_what_is_logged) {
    write_config("\n");
    start_configured();
    write_config("[daemon]\nlog-level = error\n");
    reload_and_expect("configuration read again: changed: log-level\n");
    char path[512];
    struct gradientd_run *run = open_trainer("unsaid", path);
    trainer_submit_steps(run, 1, 2);
    trainer_close(run);
    write_config("[daemon]\nlog-level = info\n[metrics]\nmetrics-interval = 30\n");
    reload_and_expect("configuration read again: changed: log-level, metrics-interval\n");
    cr_expect_eq(count_in_log("attached by"), 0);
    run = open_trainer("said", path);
    trainer_close(run);
    cr_expect_eq(count_in_log("attached by"), 1);
}

// ---- the others, and wrong ones

Test(configuration, reload_says_what_needs_a_restart) {
    write_config("[daemon]\nworkers = 2\n");
    start_configured();
    start_victim();
    write_config("[daemon]\nworkers = 3\nstate-directory = %s/other\n[limits]\nruns-per-user = 7\n"
                 "[metrics]\nmetrics-file = %s/m.prom\n[socket]\nsocket-mode = 0600\nsocket-group = 0\nsocket = /x\n",
                 directory, directory);
    reload_and_expect("configuration read again: changed: runs-per-user; needs a restart: workers, state-directory, "
                      "socket-mode, socket-group, metrics-file\n"); // not socket, which the command line has
    write_config("[daemon]\nworkers = 2\n[limits]\nruns-per-user = 7\n");
    reload_and_expect("configuration read again: nothing changed\n");
    finish_victim();
}

static void expect_old_limit(void) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    expect_error(&client, "connections", "uid 0 holds 1 already, the limit is 1");
}

Test(configuration, reload_keeps_the_old_where_the_new_is_wrong) {
    char expected[2 * CONFIG_PATH_BYTES];
    write_config("[limits]\nconnections-per-user = 1\n");
    start_configured();
    start_victim();
    size_t fds = scratch_count_fds(daemon_process.pid);
    write_config("[limits]\nconnections-per-user = 9\nruns-per-user = 0\nno-such = 1\n");
    reload_and_expect("configuration not taken, the one before stays: 2 errors\n");
    snprintf(expected, sizeof(expected), "%s:3: [limits] runs-per-user is 0, the limits are 1 and 1048576\n",
             config_path);
    cr_expect_eq(count_in_log(expected), 1);
    snprintf(expected, sizeof(expected), "%s:4: [limits] has no key no-such", config_path);
    cr_expect_eq(count_in_log(expected), 1);
    expect_old_limit();

    cr_assert(unlink(config_path) == 0);
    reload_and_expect("configuration not taken, the one before stays: 1 error\n");
    expect_old_limit();
    cr_assert(mkfifo(config_path, 0600) == 0); // nobody writes to it
    reload_and_expect("gradientd.conf: this is no regular file\n");
    expect_old_limit();
    daemon_process_expect_fds(&daemon_process, fds);
    cr_assert(unlink(config_path) == 0);
    write_config("[limits]\nconnections-per-user = 2\n");
    reload_and_expect("configuration read again: changed: connections-per-user\n");
    expect_admitted(raw_client_connect(daemon_process.socket));
    finish_victim();
}

// ---- under load

struct loaded_trainer {
    pid_t pid;
    int go; // a byte lets it submit STEPS_A_RELOAD steps more; its end lets it close
    char path[512];
};

// In a child.
static int train_when_told(struct gradientd_run *run, int told) {
    int64_t step = 0;
    char byte;
    while (read(told, &byte, 1) == 1)
        for (int i = 0; i < STEPS_A_RELOAD; i++) {
            float gradient[TRAINER_NUMEL];
            struct gradientd_step next = trainer_step(++step);
            trainer_gradient(step, gradient);
            if (trainer_submit(run, &next, gradient) != GRADIENTD_OK)
                return 2;
        }
    return gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_OK ? 0 : 3;
}

static void start_loaded_trainer(struct loaded_trainer *trainer, int number) {
    int told[2], path[2];
    char name[16];
    snprintf(name, sizeof(name), "loaded%d", number);
    cr_assert(pipe2(told, O_CLOEXEC) == 0 && pipe2(path, O_CLOEXEC) == 0);
    trainer->pid = fork();
    cr_assert_geq(trainer->pid, 0);
    if (trainer->pid == 0) {
        struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
        struct gradientd_run *run;
        close(told[1]);
        if (gradientd_open(&options, &run, NULL) < 0)
            _exit(1);
        const char *event_file = gradientd_event_path(run);
        if (write(path[1], event_file, strlen(event_file)) < 0)
            _exit(4);
        close(path[1]);
        _exit(train_when_told(run, told[0]));
    }
    close(told[0]);
    close(path[1]);
    ssize_t bytes = read(path[0], trainer->path, sizeof(trainer->path) - 1);
    cr_assert_gt(bytes, 0, "the trainer did not open its run");
    trainer->path[bytes] = '\0';
    close(path[0]);
    trainer->go = told[1];
}

// All at once: a trainer that was started later holds the pipes of those before it.
static void finish_loaded_trainers(const struct loaded_trainer *trainers) {
    for (int i = 0; i < LOADED_TRAINERS; i++)
        close(trainers[i].go);
    for (int i = 0; i < LOADED_TRAINERS; i++) {
        int status;
        cr_assert_eq(waitpid(trainers[i].pid, &status, 0), trainers[i].pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "trainer %d: 0x%x", i, (unsigned)status);
    }
}

// Limits that go up and down, lists that come and go, and every fourth time an error.
static void write_changed(int n) {
    if (n % 4 == 3)
        write_config("[limits]\nruns-per-user = none\n");
    else
        write_config(
            "[limits]\nruns-per-user = %d\nconnections-per-user = %d\nmemory-per-user = %dM\nfds-per-user = %d\n"
            "messages-per-second = %d\nattach-timeout = %d\n[access]\nallow-users = %s\n",
            1 + n % 3, 1 + n % 5, 1 + n % 2, 3 + n % 9, 1 + n % 7, 1 + n % 8, n % 2 ? "root" : "");
}

Test(configuration, reloads_under_load_change_no_byte) {
    struct loaded_trainer trainers[LOADED_TRAINERS];
    char alone[512];
    write_config("\n");
    start_configured();
    for (int i = 0; i < LOADED_TRAINERS; i++)
        start_loaded_trainer(&trainers[i], i);
    for (int n = 0; n < LOADED_RELOADS; n++) {
        for (int i = 0; i < LOADED_TRAINERS; i++)
            cr_assert_eq(write(trainers[i].go, "", 1), 1);
        write_changed(n);
        reload();
    }
    finish_loaded_trainers(trainers);
    cr_expect_eq(count_in_log("configuration not taken"), LOADED_RELOADS / 4);
    cr_expect_eq(count_in_log("refused"), 0);
    daemon_process_stop(&daemon_process);

    daemon_process_start(&daemon_process, directory);
    struct gradientd_run *run = open_trainer("alone", alone);
    trainer_submit_steps(run, 1, LOADED_RELOADS * STEPS_A_RELOAD);
    trainer_close(run);
    for (int i = 0; i < LOADED_TRAINERS; i++)
        scratch_expect_same(trainers[i].path, alone);
}

static bool is_last_taken(const void *context) {
    (void)context;
    return count_in_log("configuration read again: changed: runs-per-user\n") == 1;
}

// Drop-ins that take a while to read, after the file itself.
static void write_long_drop_ins(void) {
    char path[CONFIG_PATH_BYTES + 16];
    snprintf(path, sizeof(path), "%s.d", config_path);
    cr_assert_eq(mkdir(path, 0700), 0);
    for (int i = 0; i < LONG_DROP_INS; i++) {
        snprintf(path, sizeof(path), "%s.d/%d.conf", config_path, i);
        FILE *stream = fopen(path, "w");
        cr_assert_not_null(stream);
        for (int line = 0; line < LONG_DROP_IN_LINES; line++)
            fputs("#\n", stream);
        fclose(stream);
    }
}

// On a loaded machine this may be looked at too late; then there is no more to see than that nothing is lost.
static bool reads_or_has_read(const void *context) {
    const size_t *fds = context;
    return scratch_count_fds(daemon_process.pid) > *fds || count_in_log("configuration read again: ") > 0;
}

// Signals come faster than files are read, and the last one after a file that has been read already: what that meant is
// taken.
Test(configuration, the_last_of_many_signals_counts) {
    write_config("\n");
    write_long_drop_ins();
    start_configured();
    start_victim();
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(kill(daemon_process.pid, SIGHUP), 0);
    cr_assert(scratch_wait_until(reads_or_has_read, &fds, PATIENT), "it does not read");
    write_config("[limits]\nruns-per-user = 1\n");
    cr_assert_eq(kill(daemon_process.pid, SIGHUP), 0);
    cr_assert(scratch_wait_until(is_last_taken, NULL, PATIENT), "the last signal had no effect");
    finish_victim();
}

// ---- systemd, and a private daemon

static int new_manager(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", directory);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

static void expect_told(int manager, const char *expected) {
    char text[256];
    cr_assert(scratch_wait_readable(manager, PATIENT), "not told: %s", expected);
    ssize_t bytes = recv(manager, text, sizeof(text) - 1, 0);
    cr_assert_geq(bytes, 0);
    text[bytes] = '\0';
    cr_expect_eq(strncmp(text, expected, strlen(expected)), 0, "\"%s\", not \"%s\"", text, expected);
}

Test(configuration, systemd_is_told_of_a_reload) {
    static const char *const texts[] = {"[limits]\nruns-per-user = 1\n", "wrong"};
    if (strcmp(getenv("GRADIENTD_TEST_SYSTEMD"), "1") != 0)
        cr_skip("this build has no systemd");
    int manager = new_manager();
    write_config("\n");
    start_configured();
    expect_told(manager, "READY=1");
    expect_told(manager, "STATUS=Serving 0 runs");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_config("%s", texts[i]);
        reload();
        expect_told(manager, "RELOADING=1\nMONOTONIC_USEC=");
        expect_told(manager, "READY=1");
    }
    cr_expect_not(scratch_wait_readable(manager, 0.0));
    close(manager);
    unsetenv("NOTIFY_SOCKET");
}

// ---- start

Test(configuration, the_daemon_listens_where_its_file_says) {
    const char *const arguments[] = {"--config", config_path, NULL};
    write_config("[socket]\nsocket = %s/socket\nsocket-mode = 0600\n", directory);
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
    expect_admitted(raw_client_connect(daemon_process.socket));
    struct stat status;
    cr_assert_eq(stat(daemon_process.socket, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0600);
}

Test(configuration, the_daemon_starts_with_what_its_file_says) {
    write_config("[limits]\nconnections-per-user = 1\n[daemon]\nworkers = 3\n");
    start_configured();
    cr_expect_eq(count_in_log(": 3 workers, "), 1);
    struct raw_client first = connect_raw(RAW_WELCOME);
    expect_old_limit();
    raw_client_close(&first);
}
