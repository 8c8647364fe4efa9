// The daemon's command line.
#pragma once

#include "error.h"
#include "server.h"

enum gd_options_action {
    GD_OPTIONS_SERVE,
    GD_OPTIONS_HELP,    // print gd_options_usage
    GD_OPTIONS_VERSION, // print the version
};

extern const char gd_options_usage[];

// Reads the arguments into *ret_options, which is whole afterwards but for `kernels`; strings in it are `argv`'s. What
// is not given has its default. Returns 0, or a negative errno with *ret_error set: its text names the option, its
// value and the limits.
__attribute__((warn_unused_result)) int gd_options_parse(int argc, char **argv, struct gd_server_options *ret_options,
                                                         enum gd_options_action *ret_action,
                                                         struct gd_error *ret_error);
