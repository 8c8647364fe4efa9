// What systemd is told of a daemon, and when its watchdog is not fed any more. It is the daemon that is built with
// fault points, at which its threads can be held.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fault.h"
#include "fixture.h"
#include "raw_client.h"
#include "trainer.h"

enum {
    TEXT_BYTES = 256,
    WATCHDOG_MS = 400,    // systemd's interval: fed twice in it
    HEAVY_NUMEL = 1 << 20 // more than the loop's thread works on itself
};

static const double SOON = 20.0; // seconds; a test that passes never waits this long

static int manager; // the socket that notifications come to
static struct gd_fault_page *page;

static void bind_manager(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", directory);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(manager, (struct sockaddr *)&address, sizeof(address)), 0);
}

static void map_page(void) {
    char path[SCRATCH_PATH_BYTES + 8];
    snprintf(path, sizeof(path), "%s/page", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, sizeof(*page)) == 0);
    page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(page, MAP_FAILED);
    close(fd);
    setenv("GRADIENTD_FAULT_PAGE", path, 1);
}

static void set_up(void) {
    if (strcmp(getenv("GRADIENTD_TEST_SYSTEMD"), "1") != 0)
        cr_skip("this build has no systemd");
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    bind_manager();
    map_page();
}

static void tear_down(void) {
    if (!*directory)
        return;
    close(manager);
    fixture_tear_down();
}

TestSuite(supervision, .init = set_up, .fini = tear_down, .timeout = 60);

static void start_watched(void) {
    char us[16];
    snprintf(us, sizeof(us), "%d", WATCHDOG_MS * 1000);
    setenv("WATCHDOG_USEC", us, 1);
    daemon_process_start(&daemon_process, directory);
}

// The next notification.
static void hear(char text[TEXT_BYTES]) {
    cr_assert(scratch_wait_readable(manager, SOON), "systemd is told nothing");
    ssize_t bytes = recv(manager, text, TEXT_BYTES - 1, 0);
    cr_assert_geq(bytes, 0);
    text[bytes] = '\0';
}

static void expect_told(const char *expected) {
    char text[TEXT_BYTES];
    hear(text);
    cr_expect_str_eq(text, expected);
}

// Past what is told of the steps on the way there, at most once a second.
static void await_status(const char *expected) {
    char text[TEXT_BYTES];
    do {
        hear(text);
        cr_assert_eq(strncmp(text, "STATUS=", strlen("STATUS=")), 0, "%s", text);
    } while (strcmp(text, expected) != 0);
}

static struct gradientd_run *open_trainer(const char *name) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
    return trainer_open(&options);
}

// ---- STATUS

Test(supervision, tells_systemd_what_changes) {
    daemon_process_start(&daemon_process, directory);
    expect_told("READY=1");
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_WELCOME, NULL); // and has no run
    raw_client_close(&client);
    expect_told("STATUS=Serving 0 runs, 0 steps");

    struct gradientd_run *one = open_trainer("one");
    expect_told("STATUS=Serving 1 run, 0 steps");
    struct gradientd_run *two = open_trainer("two");
    expect_told("STATUS=Serving 2 runs, 0 steps");
    trainer_submit_steps(one, 1, 20);
    trainer_close(one);
    await_status("STATUS=Serving 1 run, 20 steps");

    kill(daemon_process.pid, SIGTERM);
    expect_told("STOPPING=1");
    expect_told("STATUS=Finishing 1 run, 20 steps");
    expect_told("STATUS=Finishing 0 runs, 20 steps");
    cr_expect_eq(daemon_process_wait_end(&daemon_process), 0);
    cr_expect_not(scratch_wait_readable(manager, 0.0), "told more than what changed");
    daemon_process.pid = 0;
    gradientd_close(two, GRADIENTD_SUCCESS);
}

Test(supervision, tells_steps_while_they_come_once_a_second) {
    enum { STEPS = 1234 };
    daemon_process_start(&daemon_process, directory);
    expect_told("READY=1");
    expect_told("STATUS=Serving 0 runs, 0 steps");
    double begun = scratch_now();
    struct gradientd_run *run = open_trainer("steps");
    trainer_submit_steps(run, 1, STEPS);
    char text[TEXT_BYTES];
    int told = 0;
    do {
        hear(text);
        told++;
    } while (strcmp(text, "STATUS=Serving 1 run, 1,234 steps") != 0);
    cr_expect_leq(told, (int)(scratch_now() - begun) + 2, "%d times", told);
    cr_expect_not(scratch_wait_readable(manager, 1.5), "told although nothing changed");
    trainer_close(run);
    expect_told("STATUS=Serving 0 runs, 1,234 steps");
}

// A private daemon is part of a trainer, which may be a service itself.
Test(supervision, a_private_daemon_tells_systemd_nothing) {
    setenv("GRADIENTD_DAEMON", daemon_process_program(), 1);
    setenv("GRADIENTD_SOCKET", "/nowhere/socket", 1);
    setenv("WATCHDOG_USEC", "20000", 1);
    struct gradientd_options options = trainer_options(NULL, directory, "private", NULL);
    options.private_daemon = true;
    struct gradientd_run *run = trainer_open(&options);
    trainer_submit_steps(run, 1, 3);
    cr_expect_not(scratch_wait_readable(manager, 0.1), "it was told something");
    trainer_close(run);
    cr_expect_not(scratch_wait_readable(manager, 0.0), "it was told something");
}

// ---- WATCHDOG

// Hears WATCHDOG `times` times, and nothing but STATUS between; how many seconds that took.
static double hear_watchdog(int times) {
    char text[TEXT_BYTES];
    double begun = scratch_now();
    while (times > 0) {
        hear(text);
        times -= strcmp(text, "WATCHDOG=1") == 0;
        cr_assert(strcmp(text, "WATCHDOG=1") == 0 || strncmp(text, "STATUS=", strlen("STATUS=")) == 0, "%s", text);
    }
    return scratch_now() - begun;
}

static void forget_told(void) {
    char text[TEXT_BYTES];
    while (scratch_wait_readable(manager, 0.0))
        hear(text);
}

// What was on its way is heard; then nothing for longer than systemd waits.
static void expect_starved(void) {
    char text[TEXT_BYTES];
    int more = 0;
    while (scratch_wait_readable(manager, 1.5 * WATCHDOG_MS * 1e-3)) {
        hear(text);
        cr_assert_lt(more++, 4, "still fed");
    }
}

Test(supervision, feeds_the_watchdog_twice_in_its_interval) {
    start_watched();
    expect_told("READY=1");
    expect_told("STATUS=Serving 0 runs, 0 steps");
    hear_watchdog(1);
    double seconds = hear_watchdog(6);
    cr_expect(seconds >= 2.5 * WATCHDOG_MS * 1e-3 && seconds < 6 * WATCHDOG_MS * 1e-3, "six times within %.3f s",
              seconds);
    struct gradientd_run *run = open_trainer("watched");
    trainer_submit_steps(run, 1, 20);
    hear_watchdog(2);
    trainer_close(run);
    kill(daemon_process.pid, SIGTERM);
    char text[TEXT_BYTES];
    do
        hear(text);
    while (strcmp(text, "STOPPING=1") != 0);
    await_status("STATUS=Finishing 0 runs, 20 steps");
    cr_expect_eq(daemon_process_wait_end(&daemon_process), 0);
    daemon_process.pid = 0;
}

Test(supervision, a_stopped_process_does_not_feed_the_watchdog) {
    start_watched();
    expect_told("READY=1");
    hear_watchdog(2);
    daemon_process_freeze(&daemon_process);
    expect_starved();
    daemon_process_thaw(&daemon_process);
    hear_watchdog(2);
}

static void attach_heavy(struct raw_client *client) {
    struct raw_open_run open_run;
    *client = raw_client_connect(daemon_process.socket);
    raw_client_advance(client, RAW_WELCOME, NULL);
    raw_open_run_init(&open_run);
    raw_open_run_add_group(&open_run, "heavy", 5, HEAVY_NUMEL, 0, 0);
    raw_client_attach(client, &open_run, event_path);
}

static bool is_held(const void *context) {
    (void)context;
    return page->reached[GD_FAULT_KERNEL_CHUNK] > 0;
}

// The loop turns, and answers, but the threads that analyse do not get on.
Test(supervision, a_hanging_analysis_does_not_feed_the_watchdog) {
    struct raw_client client;
    struct raw_snapshot snapshot;
    start_watched();
    expect_told("READY=1");
    attach_heavy(&client);
    hear_watchdog(2);
    page->held = 1 + GD_FAULT_KERNEL_CHUNK;
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(&client, &snapshot);
    cr_assert(scratch_wait_until(is_held, NULL, SOON));
    expect_starved();

    struct raw_client watcher = raw_client_connect(daemon_process.socket);
    raw_client_advance(&watcher, RAW_WELCOME, NULL);
    Gradientd__DaemonMessage *status = raw_client_ask_status(&watcher, 0, UINT64_MAX);
    cr_expect_eq(status->status->daemon->queued, 1);
    gradientd__daemon_message__free_unpacked(status, NULL);
    raw_client_close(&watcher);

    forget_told();
    page->held = 0;
    hear_watchdog(3);
    raw_client_close(&client);
}
