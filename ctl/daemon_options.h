// The options of the commands that ask a daemon.
#pragma once

#include <stdbool.h>

#include "command.h"

// Options that only some of these commands take.
enum {
    GD_TAKES_FOLLOW = 1 << 0,
    GD_TAKES_INTERVAL = 1 << 1, // and --count
    GD_TAKES_RUN = 1 << 2,      // an argument
};

struct gd_daemon_options {
    const char *socket; // NULL: where a daemon is by default
    int timeout_ms;
    int interval_ms;
    unsigned count; // of intervals; 0: without end
    bool json;
    bool follow;
    const char *run; // NULL: all
};

// `arguments` stand behind the command's name. Returns 0, or GD_EXIT_USAGE having said what is wrong.
__attribute__((warn_unused_result)) int gd_daemon_options_parse(const struct gd_command *command, unsigned takes,
                                                                int n_arguments, char **arguments,
                                                                struct gd_daemon_options *ret_options);
