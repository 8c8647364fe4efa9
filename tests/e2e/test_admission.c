// Who gets in: the rights of the socket's file, the lists of users and groups, and the time to set a run up.
#include <criterion/criterion.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "fixture.h"
#include "gradientd/protocol.h"
#include "raw_client.h"

enum { USER = 54321, OTHER_USER = 54322, GROUP = 4321, OTHER_GROUP = 4322 };

static void set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    cr_assert_eq(chmod(directory, 0755), 0);
}

TestSuite(admission, .init = set_up, .fini = fixture_tear_down, .timeout = 60);

// Starts the daemon with two options more, and with its socket open to all unless they say otherwise.
static void start_with(const char *option, const char *value, const char *second_option, const char *second_value) {
    char socket[DAEMON_PATH_BYTES];
    snprintf(socket, sizeof(socket), "%s/socket", directory);
    const char *const arguments[] = {"--socket", socket, option, value, second_option, second_value, NULL};
    daemon_process_launch(&daemon_process, directory, arguments, NULL);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
}

static void expect_rights(mode_t mode, gid_t group) {
    struct stat status;
    cr_assert_eq(stat(daemon_process.socket, &status), 0);
    cr_expect_eq(status.st_mode & 0777, mode, "0%o", status.st_mode & 0777);
    cr_expect_eq(status.st_gid, group, "%u", status.st_gid);
}

Test(admission, socket_has_the_mode_and_group_it_is_given) {
    if (geteuid() != 0)
        cr_skip("only root may give files to any group");
    start_with("--socket-mode", "0620", "--socket-group", "4321");
    expect_rights(0620, GROUP);
}

Test(admission, socket_of_a_group_is_open_to_it) {
    if (geteuid() != 0)
        cr_skip("only root may give files to any group");
    start_with("--socket-group", "4321", NULL, NULL);
    expect_rights(0660, GROUP);
}

// Connects as a user with a primary and another group: the kernel reads whose connection it is at connect.
static struct raw_client connect_as(uid_t user, gid_t primary, gid_t other) {
    cr_assert_eq(setgroups(1, &other), 0);
    cr_assert_eq(setegid(primary), 0);
    cr_assert_eq(seteuid(user), 0);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(setegid(0), 0);
    return client;
}

static void expect_admitted(struct raw_client client) {
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_close(&client);
}

static void expect_error(struct raw_client *client, Gradientd__ErrorCode code, const char *field, const char *says) {
    Gradientd__DaemonMessage *message = raw_client_receive_error(client, field);
    cr_expect_eq(message->error->code, code, "%d", message->error->code);
    cr_expect_str_eq(message->error->field, field);
    cr_expect(strstr(message->error->text, says), "%s", message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(client, field);
    raw_client_close(client);
}

static void expect_forbidden(struct raw_client client) {
    expect_error(&client, GRADIENTD__ERROR_CODE__FORBIDDEN, "user", "allow-users");
}

Test(admission, lists_say_whom_it_serves) {
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    start_with("--allow-users", "daemon,54321", "--allow-groups", "4321");
    cr_assert_eq(chmod(daemon_process.socket, 0777), 0);
    expect_admitted(connect_as(USER, OTHER_GROUP, OTHER_GROUP));
    expect_admitted(connect_as(OTHER_USER, GROUP, OTHER_GROUP));
    expect_admitted(connect_as(OTHER_USER, OTHER_GROUP, GROUP));
    expect_admitted(connect_as(0, OTHER_GROUP, OTHER_GROUP));
    expect_forbidden(connect_as(OTHER_USER, OTHER_GROUP, OTHER_GROUP));
}

Test(admission, a_list_of_groups_alone_forbids_all_others) {
    if (geteuid() != 0)
        cr_skip("only root can be another user");
    start_with("--allow-groups", "4321", NULL, NULL);
    cr_assert_eq(chmod(daemon_process.socket, 0777), 0);
    expect_admitted(connect_as(USER, GROUP, OTHER_GROUP));
    expect_forbidden(connect_as(USER, OTHER_GROUP, OTHER_GROUP));
}

// An OpenRun whose group table does not come.
static void send_half_open_run(struct raw_client *client) {
    struct raw_open_run open_run;
    uint8_t frame[1024];
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    raw_open_run_init(&open_run);
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN;
    message.open_run = &open_run.message;
    size_t bytes = gradientd__client_message__pack(&message, frame + GRADIENTD_FRAME_HEADER_BYTES);
    gd_write_u32le(frame, (uint32_t)bytes);
    gd_write_u32le(frame + 4, (uint32_t)open_run.table_bytes);
    raw_client_send_bytes(client, frame, GRADIENTD_FRAME_HEADER_BYTES + bytes, NULL, 0);
}

// One that says nothing after Hello, one whose group table never ends; a run that is attached may take its time.
Test(admission, drops_who_does_not_attach) {
    start_with("--attach-timeout", "1", NULL, NULL);
    struct raw_client good = raw_client_connect(daemon_process.socket);
    raw_client_advance(&good, RAW_ATTACHED, event_path);
    double greeted = scratch_now();
    struct raw_client silent = raw_client_connect(daemon_process.socket);
    raw_client_advance(&silent, RAW_WELCOME, NULL);
    struct raw_client slow = raw_client_connect(daemon_process.socket);
    raw_client_advance(&slow, RAW_WELCOME, NULL);
    send_half_open_run(&slow);

    expect_error(&silent, GRADIENTD__ERROR_CODE__PROTOCOL, "attach", ", the limit is 1000");
    expect_error(&slow, GRADIENTD__ERROR_CODE__PROTOCOL, "attach", ", the limit is 1000");
    cr_expect_gt(scratch_now() - greeted, 0.9);
    cr_expect_lt(scratch_now() - greeted, 4.0, "only when Hello's own time was over");
    raw_client_commit_step(&good, 1);
    raw_client_close(&good);
}
