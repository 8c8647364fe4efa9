// Trainers without an event file: the daemon puts one into its state directory and says where.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event_values.h"
#include "fixture.h"
#include "raw_client.h"
#include "trainer.h"

enum { USER = 54321, OTHER_USER = 54322, ADMIN_GROUP = 4321, OTHER_GROUP = 4322 };

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

// Starts the daemon again, with an admin group and a state directory at `state`, where all users can connect.
static void restart_for_all(const char *state, void (*prepare)(void)) {
    char socket[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    const char *const arguments[] = {
        "--socket", socket, "--socket-mode", "0666", "--admin-group", "4321", "--state-directory", state, NULL};
    daemon_process_stop(&daemon_process);
    cr_assert_eq(chmod(directory, 0755), 0);
    daemon_process_launch(&daemon_process, directory, arguments, prepare);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
}

// The event file of a run of that user's, which has ended; the caller's.
static char *train_as(uid_t user) {
    cr_assert_eq(seteuid(user), 0);
    struct raw_client client = attach_without_file();
    char *path = strdup(client.event_path);
    train(&client);
    raw_client_close(&client);
    cr_assert_eq(seteuid(0), 0);
    return path;
}

// Whether that user, who has one other group, can read the file.
static bool can_read(const char *path, uid_t user, gid_t group) {
    pid_t child = fork();
    if (child == 0) {
        if (setgroups(1, &group) < 0 || setgid(OTHER_GROUP) < 0 || setuid(user) < 0)
            _exit(2);
        _exit(open(path, O_RDONLY | O_CLOEXEC) < 0);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) < 2, "0x%x", status);
    return WEXITSTATUS(status) == 0;
}

Test(state_directory, users_read_their_own_files_and_the_admin_group_reads_all) {
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    restart_for_all(daemon_process.state, NULL);
    char *path = train_as(USER), *other_path = train_as(OTHER_USER);
    expect_whole(path);
    if (!ACLS)
        cr_skip("built without libacl");
    cr_expect(can_read(path, USER, OTHER_GROUP));
    cr_expect(can_read(other_path, OTHER_USER, OTHER_GROUP));
    cr_expect(!can_read(path, OTHER_USER, OTHER_GROUP));
    cr_expect(!can_read(other_path, USER, OTHER_GROUP));
    cr_expect(can_read(path, OTHER_USER, ADMIN_GROUP));
    cr_expect(can_read(other_path, USER, ADMIN_GROUP));
    free(path);
    free(other_path);
}

// In a mount namespace of the daemon's own, over a directory that is there.
static void mount_without_acls(void) {
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", daemon_process.state, "ramfs", 0, "mode=0755") < 0)
        _exit(1);
}

Test(state_directory, a_file_system_without_acls_costs_the_user_the_view_alone) {
    char path[SCRATCH_PATH_BYTES + 1024];
    struct stat status;
    if (geteuid() != 0)
        cr_skip("only root can mount one");
    cr_assert_eq(mkdir(daemon_process.state, 0755), 0);
    restart_for_all(daemon_process.state, mount_without_acls);
    char *event = train_as(USER);
    snprintf(path, sizeof(path), "/proc/%d/root%s", (int)daemon_process.pid, event);
    expect_whole(path);
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0600, "0%o", status.st_mode & 0777);
    struct scratch_bytes log = scratch_read(daemon_process.log);
    const char said[] = "uid 54321 will not be able to read its event file";
    const char *first = memmem(log.data, log.bytes, said, strlen(said));
    cr_assert_not_null(first);
    size_t left = log.bytes - (size_t)(first + 1 - (const char *)log.data);
    cr_expect_null(memmem(first + 1, left, said, strlen(said)), "more than one line");
    free(log.data);
    free(event);
}
