// The command line that all examples share.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "optimizer.h"

// What differs between the examples.
struct example {
    const char *name;
    const char *summary; // one line for --help
    int64_t steps;
    enum optimizer_kind optimizer;
    double learning_rates[OPTIMIZER_COUNT];
};

struct arguments {
    const char *logdir;
    const char *run;
    const char *socket; // NULL: any daemon there is, else a private one
    int64_t steps;
    uint64_t seed;
    enum optimizer_kind optimizer;
    double learning_rate;
    double max_stall_seconds;
    const char *weights; // NULL: are not written
    bool no_thinning;
    bool no_gradientd;
    char default_run[64];
};

enum arguments_outcome {
    ARGUMENTS_TRAIN = 0,
    ARGUMENTS_HELP,  // was asked for and printed: exit 0
    ARGUMENTS_WRONG, // said on stderr: exit 2
};

// Fills `ret_arguments`; its strings point into argv or into itself, so it must not be copied.
enum arguments_outcome arguments_parse(struct arguments *ret_arguments, const struct example *example, int argc,
                                       char **argv);
