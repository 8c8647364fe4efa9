// Where the daemon listens, and whose socket it is: the command line's, systemd's or the default one; a dead daemon's,
// a living one's or no socket at all.
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon_process.h"
#include "raw_client.h"
#include "scratch.h"
#include "trainer.h"

enum { PASSED_FD = 3, TEXT_BYTES = 4096 };

static char directory[SCRATCH_PATH_BYTES];
static char socket_path[SCRATCH_PATH_BYTES + 16];
static struct daemon_process daemon_process;

static void set_up(void) {
    scratch_make(directory);
    snprintf(socket_path, sizeof(socket_path), "%s/socket", directory);
    unsetenv("GRADIENTD_SOCKET");
    unsetenv("NOTIFY_SOCKET");
}

static void tear_down(void) {
    scratch_remove(directory);
}

TestSuite(sockets, .init = set_up, .fini = tear_down, .timeout = 120);

static void expect_served(const char *path) {
    struct raw_client client = raw_client_connect(path);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_close(&client);
}

// ---- Starting daemons

static void launch(const char *socket, void (*prepare)(void)) {
    const char *const arguments[] = {"--socket", socket, NULL};
    daemon_process_launch(&daemon_process, directory, socket ? arguments : arguments + 2, prepare);
}

static void expect_up(const char *socket, void (*prepare)(void)) {
    launch(socket, prepare);
    cr_assert(daemon_process_comes_up(&daemon_process), "the daemon did not start");
}

// A launched daemon must end with status 1 after saying `says`.
static void expect_end(struct daemon_process *daemon, const char *says) {
    int status = daemon_process_wait_end(daemon);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILURE, "%s: status 0x%x", says, (unsigned)status);
    struct scratch_bytes log = scratch_read(daemon->log);
    cr_expect(memmem(log.data, log.bytes, says, strlen(says)), "not \"%s\" but: %.*s", says, (int)log.bytes,
              (char *)log.data);
    free(log.data);
}

static void expect_refused(const char *socket, void (*prepare)(void), const char *says) {
    launch(socket, prepare);
    expect_end(&daemon_process, says);
}

static void close_input_and_output(void) {
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
}

Test(sockets, what_is_closed_at_the_start_is_the_null_device) {
    struct stat null, found;
    cr_assert_eq(stat("/dev/null", &null), 0);
    expect_up(socket_path, close_input_and_output);
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)daemon_process.pid, fd);
        cr_assert_eq(stat(path, &found), 0, "%s", path);
        cr_expect_eq(found.st_rdev, null.st_rdev, "%s is in use", path);
    }
    daemon_process_stop(&daemon_process);
}

// ---- A path on the command line

static int new_unix_socket(int type, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", path, strerror(errno));
    return fd;
}

Test(sockets, a_killed_daemons_socket_is_replaced) {
    expect_up(socket_path, NULL);
    daemon_process_kill(&daemon_process);
    cr_assert_eq(access(socket_path, F_OK), 0);
    expect_up(socket_path, NULL);
    expect_served(socket_path);
    daemon_process_stop(&daemon_process);
    cr_expect(access(socket_path, F_OK) < 0 && errno == ENOENT);
}

Test(sockets, a_living_daemons_socket_is_not) {
    struct daemon_process first;
    daemon_process_start(&first, directory);
    char log[DAEMON_PATH_BYTES];
    snprintf(log, sizeof(log), "%s/first.log", directory);
    cr_assert_eq(rename(first.log, log), 0);
    expect_refused(first.socket, NULL, "another gradientd serves");
    daemon_process_freeze(&first);
    expect_refused(first.socket, NULL, "another gradientd serves");
    daemon_process_thaw(&first);
    expect_served(first.socket);
    daemon_process_stop(&first);
}

// The lock is gradientd's alone; another program's socket is told by its answer.
Test(sockets, another_programs_socket_is_not) {
    int fd = new_unix_socket(SOCK_STREAM, socket_path);
    cr_assert_eq(listen(fd, 8), 0);
    expect_refused(socket_path, NULL, "is served by another program");
    cr_expect_eq(access(socket_path, F_OK), 0);
    close(fd);
}

Test(sockets, what_is_no_socket_stays) {
    FILE *file = fopen(socket_path, "w");
    cr_assert(file && fputs("data", file) >= 0 && fclose(file) == 0);
    expect_refused(socket_path, NULL, "or is no socket");
    struct scratch_bytes content = scratch_read(socket_path);
    cr_expect(content.bytes == 4 && memcmp(content.data, "data", 4) == 0);
    free(content.data);

    char link[SCRATCH_PATH_BYTES + 16];
    snprintf(link, sizeof(link), "%s/link", directory);
    cr_assert_eq(symlink("nowhere", link), 0);
    expect_refused(link, NULL, "or is no socket");
    cr_expect_eq(unlink(link), 0);
}

Test(sockets, a_path_that_cannot_be_is_named) {
    char path[SCRATCH_PATH_BYTES + 128];
    snprintf(path, sizeof(path), "%s/%0100d", directory, 0);
    expect_refused(path, NULL, "File name too long");
    snprintf(path, sizeof(path), "%s/missing/socket", directory);
    expect_refused(path, NULL, path);
}

// Which of two daemons that were launched together has come up; the other has ended as it should.
static int find_winner(struct daemon_process daemons[2]) {
    bool up[2] = {daemon_process_comes_up(&daemons[0]), daemon_process_comes_up(&daemons[1])};
    cr_assert(up[0] != up[1], "%d daemons serve", up[0] + up[1]);
    int winner = up[1];
    expect_end(&daemons[!winner], "another gradientd serves");
    return winner;
}

Test(sockets, of_two_daemons_that_start_at_once_one_wins) {
    enum { ROUNDS = 25 };
    char places[2][SCRATCH_PATH_BYTES + 16];
    for (int i = 0; i < 2; i++) {
        snprintf(places[i], sizeof(places[i]), "%s/%d", directory, i);
        cr_assert_eq(mkdir(places[i], 0700), 0);
    }
    close(new_unix_socket(SOCK_STREAM, socket_path)); // stale, as a killed daemon leaves it
    for (int round = 0; round < ROUNDS; round++) {
        const char *const arguments[] = {"--socket", socket_path, NULL};
        struct daemon_process daemons[2];
        for (int i = 0; i < 2; i++)
            daemon_process_launch(&daemons[i], places[i], arguments, NULL);
        int winner = find_winner(daemons);
        expect_served(socket_path);
        daemon_process_kill(&daemons[winner]);
    }
}

// ---- The default path

static struct stat status_of(const char *path) {
    struct stat status;
    cr_assert_eq(lstat(path, &status), 0, "%s: %s", path, strerror(errno));
    return status;
}

static void be_nobody(void) {
    umask(0);
    if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
        _exit(126);
}

Test(sockets, the_environment_names_it_first) {
    setenv("GRADIENTD_SOCKET", socket_path, 1);
    setenv("XDG_RUNTIME_DIR", "/nowhere", 1);
    expect_up(NULL, NULL);
    expect_served(socket_path);
    daemon_process_stop(&daemon_process);
}

Test(sockets, a_users_daemon_listens_in_the_runtime_directory) {
    char runtime[SCRATCH_PATH_BYTES + 16], folder[SCRATCH_PATH_BYTES + 32], path[SCRATCH_PATH_BYTES + 48];
    snprintf(runtime, sizeof(runtime), "%s/runtime", directory);
    snprintf(folder, sizeof(folder), "%s/gradientd", runtime);
    snprintf(path, sizeof(path), "%s/socket", folder);
    cr_assert_eq(chmod(directory, 0777), 0); // the log is opened before the user changes
    cr_assert_eq(mkdir(runtime, 0700), 0);
    cr_assert(geteuid() != 0 || chown(runtime, 65534, 65534) == 0);
    setenv("GRADIENTD_SOCKET", "", 1);
    setenv("XDG_RUNTIME_DIR", runtime, 1);

    expect_up(NULL, be_nobody);
    expect_served(path);
    cr_expect_eq(status_of(folder).st_mode & 07777, 0700);
    daemon_process_stop(&daemon_process);

    cr_assert_eq(chmod(folder, 0750), 0);
    expect_up(NULL, be_nobody);
    cr_expect_eq(status_of(folder).st_mode & 07777, 0750, "what is there is left as it is");
    daemon_process_stop(&daemon_process);
}

Test(sockets, a_user_without_a_runtime_directory_is_told) {
    setenv("XDG_RUNTIME_DIR", "", 1);
    expect_refused(NULL, be_nobody, "XDG_RUNTIME_DIR is not set: give --socket PATH");
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    expect_refused(NULL, be_nobody, "XDG_RUNTIME_DIR is not set: give --socket PATH");
    setenv("XDG_RUNTIME_DIR", "/nowhere", 1);
    expect_refused(NULL, be_nobody, "/nowhere/gradientd: No such file or directory");
}

Test(sockets, roots_daemon_listens_in_run) {
    if (geteuid() != 0)
        cr_skip("only root's daemon does");
    // This test is a process of its own: its /run is nobody else's.
    if (unshare(CLONE_NEWNS) < 0)
        cr_skip("no mount namespace can be had");
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("tmpfs", "/run", "tmpfs", 0, NULL), 0);
    umask(022);
    setenv("XDG_RUNTIME_DIR", directory, 1); // of the user who said sudo
    expect_up(NULL, NULL);
    expect_served("/run/gradientd/socket");
    cr_expect_eq(status_of("/run/gradientd").st_mode & 07777, 0755);
    daemon_process_stop(&daemon_process);
}

// ---- Socket activation

static int passed[2]; // descriptors for the daemon, -1: none

// Puts the passed descriptors where systemd would, and says so.
static void pass(void) {
    char text[16];
    int n_fds = 0;
    for (; n_fds < 2 && passed[n_fds] >= 0; n_fds++)
        if (dup2(passed[n_fds], PASSED_FD + n_fds) < 0)
            _exit(126);
    snprintf(text, sizeof(text), "%d", n_fds);
    setenv("LISTEN_FDS", text, 1);
    snprintf(text, sizeof(text), "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
}

// Keeps clear of the numbers that dup2() overwrites.
static int out_of_the_way(int fd) {
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    cr_assert_geq(moved, 0, "%s", strerror(errno));
    close(fd);
    return moved;
}

static void set_passed(int first, int second) {
    passed[0] = out_of_the_way(first);
    passed[1] = second < 0 ? -1 : out_of_the_way(second);
}

static int new_listening(void) {
    int fd = new_unix_socket(SOCK_STREAM, socket_path);
    cr_assert_eq(listen(fd, 8), 0);
    return fd;
}

static bool has_systemd(void) {
    return strcmp(getenv("GRADIENTD_TEST_SYSTEMD"), "1") == 0;
}

Test(sockets, a_build_without_systemd_says_so) {
    if (has_systemd())
        cr_skip("this build has systemd");
    set_passed(new_listening(), -1);
    expect_refused(NULL, pass, "LISTEN_FDS is 1, but this gradientd was built without socket activation (meson option");
}

Test(sockets, a_passed_socket_is_served_and_left_alone) {
    char lock[SCRATCH_PATH_BYTES + 32];
    if (!has_systemd())
        cr_skip("this build has no systemd");
    snprintf(lock, sizeof(lock), "%s.lock", socket_path);
    set_passed(new_listening(), -1);
    expect_up(NULL, pass);
    expect_served(socket_path);
    daemon_process_stop(&daemon_process);
    cr_expect_eq(access(socket_path, F_OK), 0, "the socket's file is systemd's");
    cr_expect(access(lock, F_OK) < 0 && errno == ENOENT, "a lock of it too");

    // Who connects while no daemon runs is served by the next one.
    struct raw_client early = raw_client_connect(socket_path);
    expect_up(NULL, pass);
    raw_client_advance(&early, RAW_WELCOME, NULL);
    raw_client_close(&early);
    expect_served(socket_path);
    daemon_process_stop(&daemon_process);
    close(passed[0]);
}

static int of_internet(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
    return fd;
}

static int of_datagrams(void) {
    return new_unix_socket(SOCK_DGRAM, socket_path);
}

static int not_listening(void) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    close(ends[1]);
    return ends[0];
}

static int no_socket(void) {
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

Test(sockets, a_passed_socket_of_another_kind_is_named) {
    static const struct {
        int (*make)(void);
        const char *says;
    } cases[] = {
        {of_internet, "is of address family 2, it must be AF_UNIX"},
        {of_datagrams, "is of type 2, it must be SOCK_STREAM"},
        {not_listening, "does not listen (Accept= must be no)"},
        {no_socket, "what systemd passed is no socket"},
    };
    if (!has_systemd())
        cr_skip("this build has no systemd");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set_passed(cases[i].make(), -1);
        expect_refused(NULL, pass, cases[i].says);
        close(passed[0]);
    }
}

Test(sockets, one_socket_is_served_no_more) {
    if (!has_systemd())
        cr_skip("this build has no systemd");
    set_passed(new_listening(), of_internet());
    expect_refused(NULL, pass, "LISTEN_FDS is 2, it must be 1 socket");
    close(passed[1]);
    passed[1] = -1;
    char other[SCRATCH_PATH_BYTES + 16];
    snprintf(other, sizeof(other), "%s/other", directory);
    expect_refused(other, pass, "systemd passed a socket, and another is set, socket");
    cr_expect(access(other, F_OK) < 0);
    close(passed[0]);
}

static void pass_to_another(void) {
    pass();
    setenv("LISTEN_PID", "1", 1);
}

Test(sockets, what_was_passed_to_another_process_is_not_taken) {
    set_passed(no_socket(), -1);
    expect_up(socket_path, pass_to_another);
    expect_served(socket_path);
    daemon_process_stop(&daemon_process);
    close(passed[0]);
}
