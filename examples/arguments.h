// The command line that all examples share.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "optimizer.h"

// An option that one example alone has: --NAME VALUE. `value` holds the default, and then what was given.
struct example_option {
    const char *name;
    const char *help;           // one line, without the default
    const char *const *choices; // the words VALUE may be, NULL-terminated, and `value` the index of one; NULL: a number
    uint64_t min, max;          // of a whole number
    uint64_t value;
};

enum { EXAMPLE_OPTIONS_MAX = 6 };

// What differs between the examples.
struct example {
    const char *name;
    const char *summary; // one line for --help
    int64_t steps;
    enum optimizer_kind optimizer;
    double learning_rates[OPTIMIZER_COUNT]; // 0: the example says later
    struct example_option *options;         // at most EXAMPLE_OPTIONS_MAX
    size_t n_options;
};

struct arguments {
    const char *logdir;
    const char *run;
    const char *socket; // NULL: any daemon there is, else a private one
    int64_t steps;
    uint64_t seed;
    struct optimizer_choice optimizer;
    double max_stall_seconds;
    const char *weights; // NULL: are not written
    bool no_thinning;
    bool no_gradientd;
    const struct example *example;
    char default_run[64];
};

enum arguments_outcome {
    ARGUMENTS_TRAIN = 0,
    ARGUMENTS_HELP,  // was asked for and printed: exit 0
    ARGUMENTS_WRONG, // said on stderr: exit 2
};

// Fills `ret_arguments` and the values of the example's options; its strings point into argv or into itself, so it must
// not be copied.
enum arguments_outcome arguments_parse(struct arguments *ret_arguments, const struct example *example, int argc,
                                       char **argv);

// The name of the learning rate's schedule; static.
const char *arguments_schedule(const struct arguments *arguments);
