// gradientctl record: runs a command, and records what its trainers send to the daemon.
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "daemon_socket.h"
#include "decode.h"
#include "gate.h"
#include "relay.h"
#include "waiting.h"

enum {
    RELAYS_MAX = 128, // twice the connections that a daemon grants a user by default
    POLLS_MAX = 2 + RELAYS_MAX * GD_RELAY_POLLS,
    LEVEL_DEFAULT = 1, // of zlib's, the fastest that packs: gradients give little for the time of the others

    // as a shell has them
    STATUS_NOT_EXECUTABLE = 126,
    STATUS_NOT_FOUND = 127,
    STATUS_SIGNAL = 128,
};

struct options {
    const char *socket;
    int level;
    bool force;
    bool json;
    char **command;
};

// One recording while the command runs.
struct session {
    struct gd_gate gate;
    struct gd_recorder recorder;
    struct gd_arena arena;
    struct gd_relay *relays;
    unsigned n_relays, relays_max;
    int signals;      // a signalfd
    pid_t child;      // 0: it has ended ...
    int status;       // ... with this exit status
    bool interrupted; // a signal came after that
    struct pollfd polls[POLLS_MAX];
};

// Where a client would find the daemon: the first place by default that answers, else the first that has a socket at
// least, whose daemon may come back.
static const char *default_socket(struct gd_socket_search *search) {
    enum { PATIENCE_MS = 1000 };
    int fd = gd_daemon_socket_connect(NULL, PATIENCE_MS, search);
    size_t chosen = search->n - 1;
    if (fd >= 0)
        close(fd);
    for (size_t i = chosen; fd < 0 && i-- > 0;)
        if (search->attempts[i].error != -ENOENT)
            chosen = i;
    return search->attempts[chosen].path;
}

// How signals stood when we were started, which is how the command finds them.
struct signals {
    sigset_t mask;
    sigset_t defaults; // of those that we ignore
};

static void ignore(int number, struct signals *before) {
    if (signal(number, SIG_IGN) != SIG_IGN)
        sigaddset(&before->defaults, number);
}

// A signalfd of what ends us and the command. Were SIGCHLD ignored, as some parents have it, nobody would be told the
// command's status.
static int take_over_signals(struct signals *before) {
    sigset_t ours;
    sigemptyset(&ours);
    for (const int *number = (const int[]){SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGHUP, 0}; *number; number++)
        sigaddset(&ours, *number);
    sigprocmask(SIG_BLOCK, &ours, &before->mask);
    sigemptyset(&before->defaults);
    signal(SIGCHLD, SIG_DFL);
    ignore(SIGPIPE, before);
    ignore(SIGXFSZ, before); // a limit of the file's size is a full disk
    return signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int spawn(struct session *session, char **command, const struct signals *before) {
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &before->mask);
    posix_spawnattr_setsigdefault(&attributes, &before->defaults);
    setenv("GRADIENTD_SOCKET", session->gate.address.sun_path, 1);
    int result = posix_spawnp(&session->child, command[0], NULL, &attributes, command, environ);
    posix_spawnattr_destroy(&attributes);
    return -result;
}

static void reap(struct session *session) {
    int status;
    if (waitpid(session->child, &status, WNOHANG) != session->child)
        return;
    session->child = 0;
    session->status = WIFSIGNALED(status) ? STATUS_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
}

// A signal that somebody sent us is meant for the command. What the terminal sends, it sends to both. When the command
// has ended it is meant for us: what it left running, or a daemon that is stopped, may have us wait for ever.
static void take_signals(struct session *session) {
    struct signalfd_siginfo signal;
    while (read(session->signals, &signal, sizeof(signal)) == sizeof(signal)) {
        if (signal.ssi_signo == SIGCHLD)
            continue;
        if (session->child == 0)
            session->interrupted = true;
        else if (signal.ssi_code != SI_KERNEL)
            kill(session->child, (int)signal.ssi_signo);
    }
    if (session->child > 0)
        reap(session);
}

// As many as there are descriptors for. Where there are fewer than trainers, these wait to be let in.
static unsigned find_relays_max(void) {
    enum {
        RELAY_FDS = 4, // trainer, daemon, the trainer's process, the recording
        OTHER_FDS = 16 // our own, and what a message brings
    };
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= OTHER_FDS + RELAYS_MAX * RELAY_FDS)
        return RELAYS_MAX;
    return limit.rlim_cur < OTHER_FDS + 2 * RELAY_FDS ? 1 : (unsigned)(limit.rlim_cur - OTHER_FDS) / RELAY_FDS;
}

static void accept_trainer(struct session *session) {
    int trainer, daemon;
    if (!gd_gate_accept(&session->gate, &trainer, &daemon))
        return;
    struct gd_relay *relay = gd_relay_new_consume(trainer, daemon, &session->recorder, &session->arena);
    if (!relay)
        return;
    relay->next = session->relays;
    session->relays = relay;
    session->n_relays++;
}

static void advance_relays(struct session *session, const struct pollfd *polls) {
    struct gd_relay **link = &session->relays;
    uint64_t now = (uint64_t)gd_now_ms();
    bool lost = false;
    for (; *link; polls += GD_RELAY_POLLS) {
        struct gd_relay *relay = *link;
        if (gd_relay_advance(relay, polls, now)) {
            link = &relay->next;
            continue;
        }
        lost = lost || gd_relay_lost_daemon(relay);
        *link = relay->next;
        session->n_relays--;
        gd_relay_free(relay);
    }
    if (lost)
        gd_gate_look(&session->gate);
}

// How long poll() may wait.
static int timeout_ms(const struct session *session) {
    enum { RELAYS_LOOK_MS = 1000 }; // at what waits for the end of a connection
    if (!session->gate.open || session->gate.pausing)
        return GD_GATE_LOOK_MS;
    return session->relays ? RELAYS_LOOK_MS : -1;
}

// One turn: waits, and does what there is to do.
static void turn(struct session *session) {
    nfds_t n = 0;
    bool lets_in = session->gate.open && !session->gate.pausing && session->n_relays < session->relays_max;
    session->polls[n++] = (struct pollfd){.fd = session->signals, .events = POLLIN};
    session->polls[n++] = (struct pollfd){.fd = lets_in ? session->gate.fd : -1, .events = POLLIN};
    for (struct gd_relay *relay = session->relays; relay; relay = relay->next, n += GD_RELAY_POLLS)
        gd_relay_poll(relay, &session->polls[n]);
    int result = poll(session->polls, n, timeout_ms(session));
    session->gate.pausing = false;
    if (result < 0)
        return; // EINTR: a stop and its end
    if (session->polls[0].revents)
        take_signals(session);
    advance_relays(session, &session->polls[2]);
    if (session->polls[1].revents)
        accept_trainer(session);
    if (!session->gate.open)
        gd_gate_look(&session->gate);
}

// Ends what is still passed on, which then is not recorded to its end.
static void interrupt_relays(struct session *session) {
    while (session->relays) {
        struct gd_relay *relay = session->relays;
        session->relays = relay->next;
        gd_relay_interrupt(relay);
        gd_relay_free(relay);
    }
}

// Runs the command. Returns its exit status.
static int run_command(struct session *session, char **command) {
    struct signals before;
    session->signals = take_over_signals(&before);
    int result = session->signals < 0 ? -errno : spawn(session, command, &before);
    if (result < 0) {
        fprintf(stderr, "gradientctl record: %s: %s\n", command[0], strerror(-result));
        return result == -ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE;
    }
    reap(session);
    while (session->child > 0 || (session->relays && !session->interrupted))
        turn(session);
    interrupt_relays(session);
    close(session->signals);
    return session->status;
}

static int record(struct session *session, const struct options *options, const char *path) {
    struct gd_socket_search search;
    const char *socket = options->socket ? options->socket : default_socket(&search);
    int result = gd_gate_init(&session->gate, socket);
    if (result == 0)
        result = gd_arena_init(&session->arena, GD_DECODE_ARENA_BYTES);
    if (result < 0) {
        fprintf(stderr, "gradientctl record: a socket before %s: %s\n", socket, strerror(-result));
        return GD_EXIT_USAGE;
    }
    result = gd_recorder_init(&session->recorder, path, options->level, options->force);
    if (result < 0) {
        fprintf(stderr, "gradientctl record: %s: %s%s\n", path, strerror(-result),
                result == -EEXIST ? "; --force replaces it" : "");
        gd_gate_deinit(&session->gate);
        return GD_EXIT_USAGE;
    }
    session->relays_max = find_relays_max();
    gd_gate_look(&session->gate);
    int status = run_command(session, options->command);
    gd_gate_deinit(&session->gate);
    gd_arena_deinit(&session->arena);
    bool whole = gd_recorder_finish(&session->recorder, options->json);
    int flush_status = gd_command_flush();
    if (status != GD_EXIT_DONE)
        return status;
    return whole ? flush_status : GD_EXIT_DAMAGE;
}

// Reads the options. Returns GD_EXIT_DONE with optind at FILE, or GD_EXIT_USAGE.
static int read_options(const struct gd_command *command, int argc, char **argv, struct options *options) {
    enum { FORCE = 1, JSON, LEVEL, SOCKET };
    static const struct option known[] = {
        {"force", no_argument, NULL, FORCE},
        {"json", no_argument, NULL, JSON},
        {"level", required_argument, NULL, LEVEL},
        {"socket", required_argument, NULL, SOCKET},
        {0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "+", known, NULL)) != -1) {
        if (option == FORCE)
            options->force = true;
        else if (option == JSON)
            options->json = true;
        else if (option == SOCKET)
            options->socket = optarg;
        else if (option == LEVEL && strlen(optarg) == 1 && optarg[0] >= '0' && optarg[0] <= '9')
            options->level = optarg[0] - '0';
        else if (option == LEVEL)
            return gd_command_usage_error(command, "--level must be 0 to 9, it is ", optarg);
        else
            return gd_command_usage_error(command, "unknown option, or one without its value: ", argv[optind - 1]);
    }
    return GD_EXIT_DONE;
}

int gd_record_run(const struct gd_command *command, int n_arguments, char **arguments) {
    static struct session session;
    struct options options = {.level = LEVEL_DEFAULT};
    char **argv = arguments - 1; // with the command's name, as getopt has it
    int argc = n_arguments + 1;

    int status = read_options(command, argc, argv, &options);
    if (status != GD_EXIT_DONE)
        return status;
    if (optind >= argc)
        return gd_command_usage_error(command, "a FILE is needed", "");
    const char *path = argv[optind++];
    if (optind >= argc || strcmp(argv[optind], "--") != 0)
        return gd_command_usage_error(command, "a -- and a COMMAND are needed after FILE", "");
    options.command = &argv[optind + 1];
    if (!options.command[0])
        return gd_command_usage_error(command, "a COMMAND is needed after --", "");
    return record(&session, &options, path);
}
