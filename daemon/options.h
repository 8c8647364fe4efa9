// The daemon's command line.
#pragma once

#include <stdbool.h>

#include "error.h"
#include "server.h"
#include "settings.h"

enum gd_options_action {
    GD_OPTIONS_SERVE,
    GD_OPTIONS_HELP,    // print gd_options_usage
    GD_OPTIONS_VERSION, // print the version
    GD_OPTIONS_CHECK,   // read the configuration and say what is in force
};

extern const char gd_options_usage[];

struct gd_command_line {
    struct gd_server_options options; // whole but for `kernels`; what is not given has its default
    bool given[GD_SETTINGS];
    const char *config_path; // NULL: the default place's, see gd_config_read()
    enum gd_options_action action;
};

// Reads the arguments; strings in *ret_command_line are `argv`'s. Returns 0, or a negative errno with *ret_error set:
// its text names the option, its value and the limits.
__attribute__((warn_unused_result)) int gd_options_parse(int argc, char **argv,
                                                         struct gd_command_line *ret_command_line,
                                                         struct gd_error *ret_error);
