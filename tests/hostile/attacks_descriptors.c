// Descriptors that nobody declared, of what they must not be, or as many as a message can bring.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"
#include "raw_frames.h"
#include "scratch.h"

enum {
    MESSAGE_FDS_MAX = 253, // the kernel's SCM_MAX_FD
    FDS_DEFAULT = 256,     // per user
    FDS_OF_A_CLIENT = 3,
    HOLDERS = 120,
    STEPS_BESIDE = 10,
};

// ---- strange ones

static int one_end(int result, const int ends[2]) {
    cr_assert_eq(result, 0);
    close(ends[1]);
    return ends[0];
}

static int strange_device(void) {
    return open("/dev/full", O_WRONLY | O_CLOEXEC);
}

static int strange_directory(void) {
    return open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int strange_pipe(void) {
    int ends[2];
    return one_end(pipe2(ends, O_CLOEXEC), ends);
}

static int strange_socket(void) {
    int ends[2];
    return one_end(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), ends);
}

static int strange_path(void) {
    return open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static int strange_text(void) {
    return open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
}

static int strange_counter(void) {
    return eventfd(1, EFD_CLOEXEC);
}

static int strange_epoll(void) {
    return epoll_create1(EPOLL_CLOEXEC);
}

static int strange_timer(void) {
    return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

static int strange_memory(void) {
    return memfd_create("strange", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

static int (*const strange[])(void) = {strange_device, strange_directory, strange_pipe,    strange_socket,
                                       strange_path,   strange_text,      strange_counter, strange_epoll,
                                       strange_timer,  strange_memory};

enum {
    STRANGE = sizeof(strange) / sizeof(strange[0]),
    STRANGE_FILES = STRANGE - 1, // but for the memory, which may be written like a file
};

static int new_strange(uint32_t kind) {
    int fd = strange[kind]();
    cr_assert_geq(fd, 0, "strange descriptor %u", kind);
    return fd;
}

// ---- floods

// Each byte of a frame brings as many as can be, until the daemon has had enough.
ATTACK(fd_flood) {
    static const struct {
        enum raw_stage stage;
        void (*send)(struct raw_client *client);
    } places[] = {
        {RAW_CONNECTED, raw_send_hello},
        {RAW_WELCOME, raw_send_open_run},
        {RAW_LAID_OUT, raw_send_attach},
        {RAW_ATTACHED, raw_send_scalars},
    };
    int fds[MESSAGE_FDS_MAX];
    while (attacker_goes_on(attacker)) {
        uint32_t place = stress_random_below(&attacker->random, sizeof(places) / sizeof(places[0]));
        uint32_t n_fds = stress_random_below(&attacker->random, 2) ? MESSAGE_FDS_MAX : FDS_OF_A_CLIENT + 1;
        struct raw_client client = attacker_connect(attacker, places[place].stage);
        struct raw_frame frame;
        raw_frame_capture(&frame, places[place].send);
        for (uint32_t i = 0; i < n_fds; i++)
            fds[i] = i < STRANGE ? new_strange(i) : dup(client.fd); // its own connection too
        for (size_t i = 0; i < frame.bytes && !attacker_is_dropped(&client); i++)
            raw_client_send_bytes(&client, frame.data + i, 1, fds, n_fds);
        for (uint32_t i = 0; i < n_fds; i++)
            close(fds[i]);
        attacker_expect_error(&client, GRADIENTD__ERROR_CODE__PROTOCOL, "fds");
        attacker_did(attacker, 1);
    }
}

// A strange one in each place of an Attach that is right but for it.
ATTACK(fd_strangers) {
    static const struct {
        const char *field;
        Gradientd__ErrorCode code;
    } places[FDS_OF_A_CLIENT] = {
        {"memory", GRADIENTD__ERROR_CODE__MEMORY},
        {"event_file", GRADIENTD__ERROR_CODE__INVALID},
        {"pidfd", GRADIENTD__ERROR_CODE__INVALID},
    };
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    attach.has_pidfd = attach.pidfd = true;
    while (attacker_goes_on(attacker)) {
        struct raw_client client = attacker_connect(attacker, RAW_LAID_OUT);
        uint32_t place = stress_random_below(&attacker->random, FDS_OF_A_CLIENT);
        int fds[] = {raw_memory_new(client.total_bytes, RAW_MEMORY_SEALS),
                     open(attacker->event_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600),
                     (int)syscall(SYS_pidfd_open, getpid(), 0)};
        close(fds[place]);
        fds[place] = new_strange(stress_random_below(&attacker->random, place == 1 ? STRANGE_FILES : STRANGE));
        raw_client_send_attach(&client, &attach, fds, FDS_OF_A_CLIENT);
        for (size_t i = 0; i < FDS_OF_A_CLIENT; i++)
            close(fds[i]);
        attacker_expect_error(&client, places[place].code, places[place].field);
        attacker_did(attacker, 1);
    }
}

// ---- held by frames that never end

struct holders {
    struct raw_client clients[HOLDERS];
    size_t refused;
};

static bool enough_refused(const void *context) {
    const struct holders *holders = context;
    size_t refused = 0;
    for (size_t i = 0; i < HOLDERS; i++)
        refused += scratch_wait_readable(holders->clients[i].fd, 0.0);
    return refused >= holders->refused;
}

// More connections than there is room for each bring what they may, and half a frame. The victim has its own.
ATTACK(fd_held) {
    static struct holders holders = {.refused = HOLDERS - (FDS_DEFAULT / FDS_OF_A_CLIENT - 1)};
    static const uint8_t half[] = {0};
    int fds[FDS_OF_A_CLIENT] = {strange_device(), strange_pipe(), strange_socket()};
    for (size_t i = 0; i < HOLDERS; i++) {
        holders.clients[i] = attacker_connect(attacker, RAW_WELCOME);
        raw_client_send_bytes(&holders.clients[i], half, sizeof(half), fds, FDS_OF_A_CLIENT);
    }
    cr_assert(scratch_wait_until(enough_refused, &holders, 20.0), "more are held than a user may have");
    attacker_wait_victim(attacker, STEPS_BESIDE);
    size_t refused = 0;
    for (size_t i = 0; i < HOLDERS; i++) {
        bool is_refused = scratch_wait_readable(holders.clients[i].fd, 0.0);
        refused += is_refused;
        if (is_refused)
            attacker_expect_error(&holders.clients[i], GRADIENTD__ERROR_CODE__QUOTA, "fds");
        else
            raw_client_close(&holders.clients[i]);
    }
    cr_assert_eq(refused, holders.refused, "%zu of %d were refused", refused, HOLDERS);
    attacker_did(attacker, HOLDERS);
}

// ---- pidfds of others

// Attaches with a pidfd that is not the trainer's.
static struct raw_client attach_with_pidfd_consume(const struct attacker *attacker, int pidfd) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    attach.has_pidfd = attach.pidfd = true;
    struct raw_client client = attacker_connect(attacker, RAW_LAID_OUT);
    cr_assert_geq(pidfd, 0);
    int fds[] = {raw_memory_new(client.total_bytes, RAW_MEMORY_SEALS),
                 open(attacker->event_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), pidfd};
    raw_client_send_attach(&client, &attach, fds, FDS_OF_A_CLIENT);
    for (size_t i = 0; i < FDS_OF_A_CLIENT; i++)
        close(fds[i]);
    return client;
}

// Of a process that has ended; reaped or not.
static int pidfd_of_the_dead(bool reaped) {
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    waitid(P_PID, (id_t)pid, &info, reaped ? WEXITED : WEXITED | WNOWAIT);
    return pidfd;
}

// A trainer that is dead already ends the run at once; that of another process, be it the daemon, ends nothing, and its
// life keeps nothing.
ATTACK(pidfds) {
    while (attacker_goes_on(attacker)) {
        uint32_t kind = stress_random_below(&attacker->random, 5);
        const pid_t living[] = {1, attacker->daemon, attacker->victim->pid};
        int pidfd = kind < 3 ? (int)syscall(SYS_pidfd_open, living[kind], 0) : pidfd_of_the_dead(kind == 3);
        struct raw_client client = attach_with_pidfd_consume(attacker, pidfd);
        Gradientd__DaemonMessage *message = raw_client_receive(&client);
        cr_assert(!message || message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED);
        cr_assert(message || kind >= 3, "a run whose trainer lives was ended");
        gradientd__daemon_message__free_unpacked(message, NULL);
        if (kind >= 3 && message)
            raw_client_expect_end(&client, "the run of a dead trainer");
        if (kind < 3) {
            raw_send_close_run(&client);
            message = raw_client_receive(&client);
            cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
            gradientd__daemon_message__free_unpacked(message, NULL);
        }
        raw_client_close(&client);
        attacker_did(attacker, 1);
    }
}

static const char *const many_connections[] = {"--connections-per-user", "200", NULL};

static const struct attack descriptors[] = {
    {"fd_flood", fd_flood, .attackers = 3, .options = attacker_room},
    {"fd_strangers", fd_strangers, .attackers = 3, .options = attacker_room, .keeps_kib = 8192},
    {"fd_held", fd_held, .attackers = 1, .options = many_connections},
    {"pidfds", pidfds, .attackers = 3, .options = attacker_room},
};

struct attacks attacks_descriptors(void) {
    return ATTACKS(descriptors);
}
