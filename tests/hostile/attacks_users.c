// Another user of the machine. The victim, the daemon and what they have are root's.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon_process.h"
#include "gradientd/protocol.h"
#include "hostile.h"
#include "raw_frames.h"
#include "scratch.h"

enum {
    CONNECTIONS = 20, // what a user may have, see `little`
    RUNS = 6,
    STEPS = 3, // of root's run
    STEPS_BESIDE = 10,
};

static const double PATIENCE_SECONDS = 40.0;

// ---- somebody who helps as root

// Starts `help` in a process that stays root, with one end of a socket; the attacker has the other.
static void start_helper(struct attacker *attacker, void (*help)(const struct attacker *attacker, int socket)) {
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    attacker->helper = fork();
    cr_assert_geq(attacker->helper, 0);
    if (attacker->helper == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        help(attacker, ends[1]);
        _exit(EXIT_SUCCESS);
    }
    close(ends[1]);
    attacker->helper_socket = ends[0];
}

// Tells it to go on, and waits for its end.
static void finish_helper(const struct attacker *attacker) {
    int status;
    close(attacker->helper_socket);
    cr_assert_eq(waitpid(attacker->helper, &status, 0), attacker->helper);
    cr_assert_eq(status, 0, "what is root's came to harm: 0x%x", (unsigned)status);
}

static void wait_for_attacker(int socket) {
    cr_assert(scratch_wait_readable(socket, PATIENCE_SECONDS), "the attacker does not end");
}

static void send_fd(int socket, int fd) {
    struct raw_client end = {.fd = socket};
    raw_client_send_bytes(&end, "", 1, &fd, 1);
}

static int receive_fd(int socket) {
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr alignment;
    } control;
    char byte;
    int fd;
    struct iovec vector = {&byte, 1};
    struct msghdr header = {.msg_iov = &vector,
                            .msg_iovlen = 1,
                            .msg_control = &control,
                            .msg_controllen = sizeof(control)};
    cr_assert(scratch_wait_readable(socket, PATIENCE_SECONDS));
    cr_assert_eq(recvmsg(socket, &header, MSG_CMSG_CLOEXEC), 1);
    const struct cmsghdr *first = CMSG_FIRSTHDR(&header);
    cr_assert(first);
    memcpy(&fd, CMSG_DATA(first), sizeof(fd));
    return fd;
}

// ---- somebody's run

// Attaches memory that there is already, with an event file, which both stay the caller's.
static void attach_existing(struct raw_client *client, int memory, int event_file) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    raw_client_send_attach(client, &attach, (int[]){memory, event_file}, 2);
}

struct robbed {
    const struct attacker *attacker;
    int memory, event_file;
};

// Whether root's run goes on. It is OWNED for a moment, where who was refused is not quite gone.
static bool can_go_on(const void *context) {
    const struct robbed *robbed = context;
    struct raw_client client = attacker_connect(robbed->attacker, RAW_LAID_OUT);
    attach_existing(&client, robbed->memory, robbed->event_file);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    cr_assert(message, "no answer to Attach");
    bool attached = message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED;
    if (attached)
        cr_assert_eq(message->attached->committed_sequence, STEPS);
    else
        cr_assert(message->error->code == GRADIENTD__ERROR_CODE__OWNED, "%s", message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
    return attached;
}

// The robber is told that the memory is another user's: true; or, while the last attempt is not quite gone, that it is
// held: false.
static bool is_of_another_user(struct raw_client *client) {
    Gradientd__DaemonMessage *message = raw_client_receive_error(client, "robbing");
    bool told = message->error->code == GRADIENTD__ERROR_CODE__MEMORY;
    cr_assert(told ? strstr(message->error->text, "belongs to uid 0") != NULL
                   : message->error->code == GRADIENTD__ERROR_CODE__OWNED,
              "%s", message->error->text);
    cr_assert_str_eq(message->error->field, "memory");
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(client, "robbing");
    raw_client_close(client);
    return told;
}

// A run whose daemon is gone: its memory lies there to be gone on with, and is given away, and so is its event file. In
// the end it is root who goes on with it.
static void be_robbed(const struct attacker *attacker, int socket) {
    char directory[SCRATCH_PATH_BYTES], path[HOSTILE_PATH_BYTES];
    struct daemon_process daemon;
    scratch_make(directory);
    snprintf(path, sizeof(path), "%s/robbed.events", directory);
    daemon_process_start(&daemon, directory);
    struct raw_client before = raw_client_connect(daemon.socket);
    raw_client_advance(&before, RAW_ATTACHED, path);
    for (uint32_t n = 1; n <= STEPS; n++)
        raw_client_commit_step(&before, n);
    daemon_process_kill(&daemon);
    int event_file = open(path, O_WRONLY | O_CLOEXEC);
    send_fd(socket, before.memory_fd);
    send_fd(socket, event_file);
    wait_for_attacker(socket);
    struct robbed robbed = {attacker, before.memory_fd, event_file};
    cr_assert(scratch_wait_until(can_go_on, &robbed, PATIENCE_SECONDS), "the run cannot be gone on with");
    scratch_remove(directory);
}

static void prepare_robbing(struct attacker *attacker) {
    start_helper(attacker, be_robbed);
}

// Goes on with root's run: with its memory, its OpenRun and its event file, or one of its own.
ATTACK(robbing) {
    int memory = receive_fd(attacker->helper_socket), event_file = receive_fd(attacker->helper_socket);
    int own_file = open(attacker->event_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (attacker_goes_on(attacker)) {
        struct raw_client client = attacker_connect(attacker, RAW_LAID_OUT);
        attach_existing(&client, memory, stress_random_below(&attacker->random, 2) ? event_file : own_file);
        attacker_did(attacker, is_of_another_user(&client));
    }
    finish_helper(attacker);
}

// ---- files

// Runs whose event files the daemon creates, and a socket that lets nobody else in.
static void keep_apart(const struct attacker *attacker, int socket) {
    char directory[SCRATCH_PATH_BYTES];
    struct daemon_process daemon;
    struct raw_client client = raw_client_connect(attacker->socket);
    raw_client_advance(&client, RAW_ATTACHED, NULL);
    raw_client_commit_step(&client, 1);
    scratch_make(directory); // with mode 0700
    daemon_process_start(&daemon, directory);
    struct raw_client end = {.fd = socket};
    raw_client_send_bytes(&end, client.event_path, strlen(client.event_path) + 1, NULL, 0);
    raw_client_send_bytes(&end, daemon.socket, strlen(daemon.socket) + 1, NULL, 0);
    wait_for_attacker(socket);
    daemon_process_stop(&daemon);
    raw_client_close(&client);
    scratch_remove(directory);
}

static void prepare_prying(struct attacker *attacker) {
    start_helper(attacker, keep_apart);
}

static void receive_path(int socket, char path[HOSTILE_PATH_BYTES]) {
    size_t at = 0;
    do {
        cr_assert(scratch_wait_readable(socket, PATIENCE_SECONDS) && at < HOSTILE_PATH_BYTES);
        cr_assert_eq(recv(socket, path + at, 1, 0), 1);
    } while (path[at++]);
}

static void expect_no_connection(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno == EACCES);
    close(fd);
}

// Reads and writes what is not its own.
ATTACK(prying) {
    char event_file[HOSTILE_PATH_BYTES], closed_socket[HOSTILE_PATH_BYTES], path[HOSTILE_PATH_BYTES];
    receive_path(attacker->helper_socket, event_file);
    receive_path(attacker->helper_socket, closed_socket);
    cr_assert(open(event_file, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES, "root's event file can be read");
    *strrchr(event_file, '/') = '\0';
    cr_assert(!opendir(event_file) && errno == EACCES);
    expect_no_connection(closed_socket);
    snprintf(path, sizeof(path), "/proc/%d/fd", attacker->daemon);
    cr_assert(!opendir(path) && errno == EACCES);
    // whoever held the lock would keep the daemon from starting again
    snprintf(path, sizeof(path), "%s.lock", attacker->socket);
    cr_assert(open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES, "the daemon's lock can be had");
    attacker_did(attacker, 1);
    finish_helper(attacker);
}

// Where only root is served.
ATTACK(forbidden) {
    while (attacker_goes_on(attacker)) {
        struct raw_client client = raw_client_connect(attacker->socket);
        raw_send_hello(&client);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__FORBIDDEN, "user");
        attacker_did(attacker, 1);
    }
}

static const char *const only_root[] = {"--allow-users", "root", NULL};

// ---- what a user may take

// A whole run of root's, when the attacker has taken all it can.
static void open_another(const struct attacker *attacker, int socket) {
    wait_for_attacker(socket);
    struct raw_client client = raw_client_connect(attacker->socket);
    char path[HOSTILE_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/another.events", attacker->directory);
    raw_client_advance(&client, RAW_ATTACHED, path);
    for (uint32_t n = 1; n <= STEPS; n++)
        raw_client_commit_step(&client, n);
    raw_client_close(&client);
}

static void prepare_hoarding(struct attacker *attacker) {
    start_helper(attacker, open_another);
}

// Takes all the runs there are, their memory and descriptors, then all the connections, then all the messages.
ATTACK(hoarding) {
    struct raw_client clients[CONNECTIONS];
    for (size_t i = 0; i < CONNECTIONS; i++)
        clients[i] = attacker_connect(attacker, i < RUNS ? RAW_ATTACHED : RAW_WELCOME);
    struct raw_client refused = raw_client_connect(attacker->socket);
    attacker_expect_error(&refused, GRADIENTD__ERROR_CODE__QUOTA, "connections");
    raw_send_open_run(&clients[RUNS]);
    attacker_expect_error(&clients[RUNS], GRADIENTD__ERROR_CODE__QUOTA, "runs");
    for (uint64_t i = 1; !attacker_is_dropped(&clients[0]); i++)
        raw_client_send_scalars(&clients[0], i, (int64_t)i, 1.7e9, "loss");
    attacker_expect_error(&clients[0], GRADIENTD__ERROR_CODE__QUOTA, "messages");
    attacker_wait_victim(attacker, STEPS_BESIDE);
    attacker_did(attacker, CONNECTIONS);
    finish_helper(attacker);
    for (size_t i = 1; i < CONNECTIONS; i++)
        if (i != RUNS)
            raw_client_close(&clients[i]);
}

// The victim needs no more, and the warm-up run before it.
static const char *const little[] = {"--connections-per-user",
                                     "20",
                                     "--runs-per-user",
                                     "6",
                                     "--fds-per-user",
                                     "24",
                                     "--messages-per-second",
                                     "5000",
                                     NULL};

static const struct attack users[] = {
    {"robbing", robbing, .attackers = 2, .uid = HOSTILE_OTHER_UID, .prepare = prepare_robbing,
     .options = attacker_room},
    {"prying", prying, .attackers = 1, .uid = HOSTILE_OTHER_UID, .prepare = prepare_prying},
    {"forbidden", forbidden, .attackers = 3, .uid = HOSTILE_OTHER_UID, .options = only_root},
    {"hoarding", hoarding, .attackers = 1, .uid = HOSTILE_OTHER_UID, .prepare = prepare_hoarding, .options = little},
};

struct attacks attacks_users(void) {
    return ATTACKS(users);
}
