#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CONNECTION_FD_MIN = 3, // below it are the standard streams
    CONNECTION_FD_MAX = 1 << 20,
};

const char gd_options_usage[] =
    "Usage: gradientd [--socket PATH] [OPTION...]\n"
    "       gradientd --check-config [--config FILE] [OPTION...]\n"
    "\n"
    "Computes gradient coherence and Adam-type convergence ratios for training jobs that connect to its Unix socket,\n"
    "and writes them into their TensorBoard event files. SIGTERM finishes what was submitted and ends it,\n"
    "SIGHUP reads the configuration again. An option here replaces the configuration's key of the same name, see\n"
    "gradientd.conf(5).\n"
    "\n"
    "  --config FILE           the configuration, with FILE.d/*.conf (default: gradientd.conf in "
    "$CONFIGURATION_DIRECTORY,\n"
    "                          else in " GD_SYSCONFDIR "/gradientd for root, else in $XDG_CONFIG_HOME/gradientd or\n"
    "                          ~/.config/gradientd)\n"
    "  --check-config          say what is wrong with the configuration, or else what is in force, and exit\n"
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
    "  --log-level LEVEL       the least important that is logged: error, warning or info (default: info)\n"
    "  --metrics-file PATH     where to write metrics on the daemon itself, for Prometheus (default: nowhere)\n"
    "  --metrics-interval SECONDS  between two writes of them, 1 to 3600 (default: 15)\n"
    "  --connection-fd N       serve one connected socket and end with it (how a client starts a private daemon, "
    "which\n"
    "                          reads no configuration)\n"
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

// What getopt_long() says instead of a setting's number, counted from FIRST_SETTING.
enum {
    CONNECTION_FD = 1,
    CONFIG,
    CHECK_CONFIG,
    HELP,
    VERSION,
    FIRST_SETTING,
    OTHERS = FIRST_SETTING - 1,
};

static const struct option others[OTHERS] = {
    {"connection-fd", required_argument, NULL, CONNECTION_FD},
    {"config", required_argument, NULL, CONFIG},
    {"check-config", no_argument, NULL, CHECK_CONFIG},
    {"version", no_argument, NULL, VERSION},
    {"help", no_argument, NULL, HELP},
};

static int take_connection_fd(struct gd_server_options *options, struct gd_error *ret_error) {
    char *end;
    unsigned long number = strtoul(optarg, &end, 10); // one that does not fit is too large as well
    if (*optarg < '0' || *optarg > '9' || *end || number < CONNECTION_FD_MIN || number > CONNECTION_FD_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "--connection-fd",
                            "--connection-fd is %s, the limits are %d and %d", optarg, CONNECTION_FD_MIN,
                            CONNECTION_FD_MAX);
    options->connection_fd = (int)number;
    return 0;
}

static int take_setting(enum gd_setting_id id, struct gd_command_line *command_line, struct gd_error *ret_error) {
    char name[64];
    snprintf(name, sizeof(name), "--%s", gd_settings[id].key);
    command_line->given[id] = true;
    return gd_setting_parse(id, name, optarg, &command_line->options, ret_error);
}

// One option with its value, or what getopt_long() says instead.
static int take(int option, struct gd_command_line *command_line, char *const *argv, struct gd_error *ret_error) {
    if (option >= FIRST_SETTING && option < FIRST_SETTING + GD_SETTINGS)
        return take_setting((enum gd_setting_id)(option - FIRST_SETTING), command_line, ret_error);
    switch (option) {
    case CONNECTION_FD:
        return take_connection_fd(&command_line->options, ret_error);
    case CONFIG:
        command_line->config_path = optarg;
        return 0;
    case CHECK_CONFIG:
        command_line->action = GD_OPTIONS_CHECK;
        return 0;
    case VERSION:
        command_line->action = GD_OPTIONS_VERSION;
        return 0;
    case HELP:
        command_line->action = GD_OPTIONS_HELP;
        return 0;
    default:
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options", "%s is %s", argv[optind - 1],
                            option == ':' ? "without its value" : "no option that is known");
    }
}

// What does not go together.
static int check_pairs(const struct gd_command_line *command_line, struct gd_error *ret_error) {
    if (command_line->options.connection_fd < 0)
        return 0;
    if (command_line->options.socket_path)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options", "give either --socket or --connection-fd");
    if (command_line->config_path || command_line->action == GD_OPTIONS_CHECK)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options",
                            "a daemon with --connection-fd reads no configuration: neither --config nor --check-config "
                            "can be given");
    return 0;
}

// Help and version end the command line.
static bool goes_on(const struct gd_command_line *command_line) {
    return command_line->action == GD_OPTIONS_SERVE || command_line->action == GD_OPTIONS_CHECK;
}

int gd_options_parse(int argc, char **argv, struct gd_command_line *ret_command_line, struct gd_error *ret_error) {
    struct option known[OTHERS + GD_SETTINGS + 1] = {0};
    for (int i = 0; i < OTHERS; i++)
        known[i] = others[i];
    for (int id = 0; id < GD_SETTINGS; id++)
        known[OTHERS + id] = (struct option){gd_settings[id].key, required_argument, NULL, FIRST_SETTING + id};

    *ret_command_line = (struct gd_command_line){.options = gd_settings_default()};
    opterr = 0; // what is wrong is the caller's to print
    optind = 0; // from the start, also in a second call
    int option;
    while (goes_on(ret_command_line) && (option = getopt_long(argc, argv, ":", known, NULL)) != -1) {
        int result = take(option, ret_command_line, argv, ret_error);
        if (result < 0)
            return result;
    }
    if (!goes_on(ret_command_line))
        return 0;
    if (optind < argc)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "options", "unexpected argument %s", argv[optind]);
    return check_pairs(ret_command_line, ret_error);
}
