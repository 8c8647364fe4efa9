#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

#include "session.h"

enum {
    CONNECTION_FD_MIN = 3, // below it are the standard streams
    CONNECTION_FD_MAX = 1 << 20,
};

const char gd_options_usage[] =
    "Usage: gradientd [--socket PATH] [OPTION...]\n"
    "\n"
    "Computes gradient coherence and Adam-type convergence ratios for training jobs that connect to its Unix socket,\n"
    "and writes them into their TensorBoard event files. SIGTERM finishes what was submitted and ends it.\n"
    "\n"
    "  --socket PATH           where to listen (default: the socket that systemd passed, else $GRADIENTD_SOCKET, else\n"
    "                          /run/gradientd/socket for root, $XDG_RUNTIME_DIR/gradientd/socket for others)\n"
    "  --state-directory DIR   where to put the event files of trainers that have no logdir (default: "
    "$STATE_DIRECTORY,\n"
    "                          else /var/lib/gradientd for root, else $XDG_STATE_HOME/gradientd or\n"
    "                          ~/.local/state/gradientd)\n"
    "  --workers N             threads that analyse snapshots, 1 to 64 (default: half the cores)\n"
    "  --connection-fd N       serve one connected socket and end with it (how a client starts a private daemon)\n"
    "  --version\n"
    "  --help\n"
    "\n"
    "Environment: GRADIENTD_KERNELS=scalar chooses the kernels by name.\n";

static uint32_t default_workers(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long workers = cores / 2;
    if (workers < 1)
        return 1;
    return workers < GD_WORKERS_MAX ? (uint32_t)workers : GD_WORKERS_MAX;
}

static int parse_number(const char *option, const char *text, long least, long most, uint32_t *ret_number,
                        struct gd_error *ret_error) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        return gd_error_set(ret_error, GD_ERROR_INVALID, option, "--%s is %s, the limits are %ld and %ld", option, text,
                            least, most);
    *ret_number = (uint32_t)value;
    return 0;
}

// One option with its value, or what getopt_long() says instead.
static int take(int option, struct gd_server_options *options, enum gd_options_action *action, char *const *argv,
                struct gd_error *ret_error) {
    uint32_t number = 0;
    int result = 0;

    switch (option) {
    case 's':
        options->socket_path = optarg;
        break;
    case 'd':
        options->state_directory = optarg;
        break;
    case 'w':
        result = parse_number("workers", optarg, 1, GD_WORKERS_MAX, &options->workers, ret_error);
        break;
    case 'c':
        result = parse_number("connection-fd", optarg, CONNECTION_FD_MIN, CONNECTION_FD_MAX, &number, ret_error);
        if (result == 0)
            options->connection_fd = (int)number;
        break;
    case 'v':
        *action = GD_OPTIONS_VERSION;
        break;
    case 'h':
        *action = GD_OPTIONS_HELP;
        break;
    default:
        result = gd_error_set(ret_error, GD_ERROR_INVALID, "options", "%s is %s", argv[optind - 1],
                              option == ':' ? "without its value" : "no option that is known");
    }
    return result;
}

int gd_options_parse(int argc, char **argv, struct gd_server_options *ret_options, enum gd_options_action *ret_action,
                     struct gd_error *ret_error) {
    static const struct option known[] = {
        {"socket", required_argument, NULL, 's'},
        {"state-directory", required_argument, NULL, 'd'},
        {"workers", required_argument, NULL, 'w'},
        {"connection-fd", required_argument, NULL, 'c'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    *ret_options = (struct gd_server_options){.connection_fd = -1, .workers = default_workers()};
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
