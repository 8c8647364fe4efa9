#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "session.h"

enum {
    CONNECTION_FD_MIN = 3, // below it are the standard streams
    CONNECTION_FD_MAX = 1 << 20,
    PER_USER_MAX = 1 << 20, // of connections, runs and descriptors: more than a process can have

    // What a user gets unless the command line says otherwise. Connections, runs and descriptors: a machine's whole
    // share of a parallel job, several times over. A quarter of the memory: the job and others need the rest. Messages:
    // several times what the loop was measured to take of a single trainer.
    CONNECTIONS_DEFAULT = 64,
    RUNS_DEFAULT = 64,
    FDS_DEFAULT = 256,
    MEMORY_PERCENT_DEFAULT = 25,
    MESSAGES_DEFAULT = 1000000,

    MS_PER_SECOND = 1000,
    ATTACH_TIMEOUT_SECONDS_MAX = 86400,
    // Between Hello and Attach a trainer makes its memory: 0.3 s a gigabyte, for a terabyte.
    ATTACH_TIMEOUT_SECONDS_DEFAULT = 300,
};

static const uint64_t MEMORY_MIN = UINT64_C(1) << 20; // bytes; the smallest run takes more
static const uint64_t MEMORY_MAX = UINT64_C(1) << 50; // no machine has more

const char gd_options_usage[] =
    "Usage: gradientd [--socket PATH] [OPTION...]\n"
    "\n"
    "Computes gradient coherence and Adam-type convergence ratios for training jobs that connect to its Unix socket,\n"
    "and writes them into their TensorBoard event files. SIGTERM finishes what was submitted and ends it.\n"
    "\n"
    "  --socket PATH           where to listen (default: the socket that systemd passed, else $GRADIENTD_SOCKET, else\n"
    "                          /run/gradientd/socket for root, $XDG_RUNTIME_DIR/gradientd/socket for others)\n"
    "  --socket-mode MODE      rights of the socket's file, octal, as 0660 (default: what the umask leaves, or 0660 "
    "with\n"
    "                          --socket-group)\n"
    "  --socket-group GROUP    group of the socket's file\n"
    "  --allow-users LIST      serve only these users, names or numbers separated by commas, ...\n"
    "  --allow-groups LIST     ... and the users of these groups; root and the daemon's own user always\n"
    "  --admin-group GROUP     whose members see all users' runs; others see their own (default: none)\n"
    "  --attach-timeout SECONDS    that a client may take from its first message to the end of its setting up, 1 to\n"
    "                          86400 (default: 300, of which touching the memory takes 0.3 a gigabyte)\n"
    "  --state-directory DIR   where to put the event files of trainers that have no logdir (default: "
    "$STATE_DIRECTORY,\n"
    "                          else /var/lib/gradientd for root, else $XDG_STATE_HOME/gradientd or\n"
    "                          ~/.local/state/gradientd)\n"
    "  --workers N             threads that analyse snapshots, 1 to 64 (default: half the cores)\n"
    "  --connection-fd N       serve one connected socket and end with it (how a client starts a private daemon)\n"
    "\n"
    "What each user may take; a client that asks for more is refused with an Error:\n"
    "  --connections-per-user N    at once (default: 64)\n"
    "  --runs-per-user N           at once (default: 64)\n"
    "  --fds-per-user N            descriptors that the daemon holds for them (default: 256)\n"
    "  --memory-per-user BYTES     of all their runs, shared with the daemon or its own; a number, with K, M, G or T "
    "for\n"
    "                              its binary multiples, or with % for a part of the machine's (default: 25%)\n"
    "  --messages-per-second N     over all their connections (default: 1000000)\n"
    "\n"
    "  --version\n"
    "  --help\n"
    "\n"
    "Environment: GRADIENTD_KERNELS=avx512, avx2, sse4, neon or scalar chooses the kernels by name.\n";

static uint32_t default_workers(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long workers = cores / 2;
    if (workers < 1)
        return 1;
    return workers < GD_WORKERS_MAX ? (uint32_t)workers : GD_WORKERS_MAX;
}

static uint64_t physical_memory_bytes(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

// The decimal number that `text` begins with; *ret_end is `text` where there is none or it does not fit.
static uint64_t read_number(const char *text, const char **ret_end) {
    char *end;
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    bool taken = *text >= '0' && *text <= '9' && errno == 0; // strtoull also takes spaces and signs
    *ret_end = taken ? end : text;
    return number;
}

static int parse_number(const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *ret_number,
                        struct gd_error *ret_error) {
    const char *end;
    uint64_t number = read_number(text, &end);
    if (end == text || *end || number < least || number > most)
        return gd_error_set(ret_error, GD_ERROR_INVALID, option, "%s is %s, the limits are %llu and %llu", option, text,
                            (unsigned long long)least, (unsigned long long)most);
    *ret_number = number;
    return 0;
}

// The factor of a suffix, 0: unknown. A hundredth of the memory is its own factor, rounded down.
static uint64_t unit_bytes(const char *suffix) {
    static const char letters[] = "KMGT";
    if (!*suffix)
        return 1;
    if (suffix[1])
        return 0;
    if (*suffix == '%')
        return physical_memory_bytes() / 100;
    const char *letter = strchr(letters, *suffix);
    return letter ? UINT64_C(1) << (10 * (letter - letters + 1)) : 0;
}

static int parse_memory(const char *option, const char *text, uint64_t *ret_bytes, struct gd_error *ret_error) {
    const char *end;
    uint64_t number = read_number(text, &end);
    uint64_t unit = end == text ? 0 : unit_bytes(end);
    bool percents = unit > 0 && *end == '%';
    if (unit == 0 || number > MEMORY_MAX / unit || number * unit < MEMORY_MIN || (percents && number > 100))
        return gd_error_set(ret_error, GD_ERROR_INVALID, option, "%s is %s, the limits are 1M and %s", option, text,
                            percents ? "100%" : "1024T; K, M, G, T and % are known");
    *ret_bytes = number * unit;
    return 0;
}

enum {
    SOCKET = 1,
    SOCKET_MODE,
    SOCKET_GROUP,
    ALLOW_USERS,
    ALLOW_GROUPS,
    ADMIN_GROUP,
    STATE_DIRECTORY,
    MEMORY,
    HELP,
    VERSION,
    FIRST_NUMBER,
    WORKERS = FIRST_NUMBER,
    CONNECTION_FD,
    CONNECTIONS,
    RUNS,
    FDS,
    ATTACH_TIMEOUT,
    MESSAGES,
    LAST_NUMBER = MESSAGES,
};

static int take_number(int option, struct gd_server_options *options, struct gd_error *ret_error) {
    static const struct {
        const char *name;
        uint64_t least, most;
    } numbers[] = {
        [WORKERS] = {"--workers", 1, GD_WORKERS_MAX},
        [CONNECTION_FD] = {"--connection-fd", CONNECTION_FD_MIN, CONNECTION_FD_MAX},
        [CONNECTIONS] = {"--connections-per-user", 1, PER_USER_MAX},
        [RUNS] = {"--runs-per-user", 1, PER_USER_MAX},
        [FDS] = {"--fds-per-user", GRADIENTD_FDS_MAX, PER_USER_MAX},
        [ATTACH_TIMEOUT] = {"--attach-timeout", 1, ATTACH_TIMEOUT_SECONDS_MAX},
        [MESSAGES] = {"--messages-per-second", 1, GD_QUOTA_MESSAGES_MAX},
    };
    uint64_t number = 0;
    int result =
        parse_number(numbers[option].name, optarg, numbers[option].least, numbers[option].most, &number, ret_error);
    if (result < 0)
        return result;
    switch (option) {
    case WORKERS:
        options->workers = (uint32_t)number;
        break;
    case CONNECTION_FD:
        options->connection_fd = (int)number;
        break;
    case CONNECTIONS:
        options->quota.most[GD_QUOTA_CONNECTIONS] = number;
        break;
    case RUNS:
        options->quota.most[GD_QUOTA_RUNS] = number;
        break;
    case FDS:
        options->quota.most[GD_QUOTA_FDS] = number;
        break;
    case ATTACH_TIMEOUT:
        options->attach_timeout_ms = (uint32_t)number * MS_PER_SECOND;
        break;
    default:
        options->quota.messages_per_second = (uint32_t)number;
    }
    return 0;
}

// Rights as chmod takes them, without the bits that a socket has no use for.
static int parse_mode(const char *option, const char *text, int *ret_mode, struct gd_error *ret_error) {
    char *end;
    unsigned long mode = strtoul(text, &end, 8);
    if (*text < '0' || *text > '7' || *end || mode > 0777)
        return gd_error_set(ret_error, GD_ERROR_INVALID, option, "%s is %s, it must be octal, at most 0777", option,
                            text);
    *ret_mode = (int)mode;
    return 0;
}

// One option with its value, or what getopt_long() says instead.
static int take(int option, struct gd_server_options *options, enum gd_options_action *action, char *const *argv,
                struct gd_error *ret_error) {
    if (option >= FIRST_NUMBER && option <= LAST_NUMBER)
        return take_number(option, options, ret_error);
    switch (option) {
    case SOCKET:
        options->socket_path = optarg;
        return 0;
    case SOCKET_MODE:
        return parse_mode("--socket-mode", optarg, &options->socket_rights.mode, ret_error);
    case SOCKET_GROUP:
        return gd_admission_find_group("--socket-group", optarg, &options->socket_rights.group, ret_error);
    case ALLOW_USERS:
        return gd_admission_add_users(&options->admission, "--allow-users", optarg, ret_error);
    case ALLOW_GROUPS:
        return gd_admission_add_groups(&options->admission, "--allow-groups", optarg, ret_error);
    case ADMIN_GROUP:
        return gd_admission_find_group("--admin-group", optarg, &options->admin_group, ret_error);
    case STATE_DIRECTORY:
        options->state_directory = optarg;
        return 0;
    case MEMORY:
        return parse_memory("--memory-per-user", optarg, &options->quota.most[GD_QUOTA_MEMORY], ret_error);
    case VERSION:
        *action = GD_OPTIONS_VERSION;
        return 0;
    case HELP:
        *action = GD_OPTIONS_HELP;
        return 0;
    default:
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options", "%s is %s", argv[optind - 1],
                            option == ':' ? "without its value" : "no option that is known");
    }
}

static struct gd_server_options default_options(void) {
    return (struct gd_server_options){
        .socket_rights = {.mode = -1, .group = (gid_t)-1},
        .admin_group = (gid_t)-1,
        .attach_timeout_ms = ATTACH_TIMEOUT_SECONDS_DEFAULT * MS_PER_SECOND,
        .connection_fd = -1,
        .workers = default_workers(),
        .quota =
            {
                .most = {[GD_QUOTA_CONNECTIONS] = CONNECTIONS_DEFAULT,
                         [GD_QUOTA_RUNS] = RUNS_DEFAULT,
                         [GD_QUOTA_FDS] = FDS_DEFAULT,
                         [GD_QUOTA_MEMORY] = physical_memory_bytes() / 100 * MEMORY_PERCENT_DEFAULT},
                .messages_per_second = MESSAGES_DEFAULT,
            },
    };
}

int gd_options_parse(int argc, char **argv, struct gd_server_options *ret_options, enum gd_options_action *ret_action,
                     struct gd_error *ret_error) {
    static const struct option known[] = {
        {"socket", required_argument, NULL, SOCKET},
        {"socket-mode", required_argument, NULL, SOCKET_MODE},
        {"socket-group", required_argument, NULL, SOCKET_GROUP},
        {"allow-users", required_argument, NULL, ALLOW_USERS},
        {"allow-groups", required_argument, NULL, ALLOW_GROUPS},
        {"admin-group", required_argument, NULL, ADMIN_GROUP},
        {"attach-timeout", required_argument, NULL, ATTACH_TIMEOUT},
        {"state-directory", required_argument, NULL, STATE_DIRECTORY},
        {"workers", required_argument, NULL, WORKERS},
        {"connection-fd", required_argument, NULL, CONNECTION_FD},
        {"connections-per-user", required_argument, NULL, CONNECTIONS},
        {"runs-per-user", required_argument, NULL, RUNS},
        {"fds-per-user", required_argument, NULL, FDS},
        {"memory-per-user", required_argument, NULL, MEMORY},
        {"messages-per-second", required_argument, NULL, MESSAGES},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},
        {0},
    };
    *ret_options = default_options();
    *ret_action = GD_OPTIONS_SERVE;
    opterr = 0; // what is wrong is the caller's to print
    optind = 0; // from the start, also in a second call
    int option;
    while (*ret_action == GD_OPTIONS_SERVE && (option = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        int result = take(option, ret_options, ret_action, argv, ret_error);
        if (result < 0)
            return result;
    }
    if (*ret_action != GD_OPTIONS_SERVE)
        return 0;
    if (optind < argc)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options", "unexpected argument %s", argv[optind]);
    if (ret_options->socket_path && ret_options->connection_fd >= 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options", "give either --socket or --connection-fd");
    return 0;
}
