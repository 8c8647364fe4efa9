#include "arguments.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t steps_max = 1000000000;
static const double learning_rate_max = 1000.0;
static const double max_stall_max_seconds = 3600.0;

enum {
    OPTION_LOGDIR = 256, // above every character getopt may return
    OPTION_RUN,
    OPTION_SOCKET,
    OPTION_STEPS,
    OPTION_SEED,
    OPTION_OPTIMIZER,
    OPTION_LEARNING_RATE,
    OPTION_MAX_STALL,
    OPTION_NO_THINNING,
    OPTION_NO_GRADIENTD,
    OPTION_WEIGHTS,
    OPTION_HELP,
};

static const struct option options[] = {
    {"logdir", required_argument, NULL, OPTION_LOGDIR},
    {"run", required_argument, NULL, OPTION_RUN},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"optimizer", required_argument, NULL, OPTION_OPTIMIZER},
    {"learning-rate", required_argument, NULL, OPTION_LEARNING_RATE},
    {"max-stall", required_argument, NULL, OPTION_MAX_STALL},
    {"no-thinning", no_argument, NULL, OPTION_NO_THINNING},
    {"no-gradientd", no_argument, NULL, OPTION_NO_GRADIENTD},
    {"weights", required_argument, NULL, OPTION_WEIGHTS},
    {"help", no_argument, NULL, OPTION_HELP},
    {0},
};

static void arguments_print_help(const struct example *example) {
    printf("Usage: %s [OPTION]...\n%s\n\n", example->name, example->summary);
    printf("  --steps N            optimiser steps (%" PRId64 ")\n"
           "  --seed N             of the random numbers (1)\n"
           "  --optimizer NAME     one of:",
           example->steps);
    for (enum optimizer_kind kind = 0; kind < OPTIMIZER_COUNT; kind++)
        printf(" %s", optimizer_settings_of(kind)->name);
    printf(" (%s)\n", optimizer_settings_of(example->optimizer)->name);
    printf("  --learning-rate X    default:");
    for (enum optimizer_kind kind = 0; kind < OPTIMIZER_COUNT; kind++)
        printf(" %s %g", optimizer_settings_of(kind)->name, example->learning_rates[kind]);
    printf("\n\n"
           "  --logdir DIR         where TensorBoard looks for runs (./runs); \"\": train without gradientd\n"
           "  --run NAME           the run's directory below it (%s-OPTIMIZER)\n"
           "  --socket PATH        the daemon's socket; by default the usual places, else a private daemon is started\n"
           "  --max-stall SECONDS  how long a step may wait for the daemon before it is skipped (1)\n"
           "  --no-thinning        write every step, past 10,000 too\n"
           "  --no-gradientd       train without gradientd\n"
           "  --weights FILE       write what was learned: the parameters as 32-bit floats, little-endian\n"
           "  --help               this text\n",
           example->name);
}

static enum arguments_outcome arguments_take_whole(const char *name, const char *option, const char *text, uint64_t min,
                                                   uint64_t max, uint64_t *ret_number) {
    char *end = NULL;
    errno = 0;
    uintmax_t number = strtoumax(text, &end, 10);

    // strtoumax() takes a minus sign, and blanks before it.
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || number < min || number > max) {
        fprintf(stderr, "%s: --%s is '%s', must be a whole number from %" PRIu64 " to %" PRIu64 "\n", name, option,
                text, min, max);
        return ARGUMENTS_WRONG;
    }
    *ret_number = number;
    return ARGUMENTS_TRAIN;
}

// A number in [0, max], or in (0, max] where `above_zero`.
static enum arguments_outcome arguments_take_real(const char *name, const char *option, const char *text,
                                                  bool above_zero, double max, double *ret_number) {
    char *end = NULL;
    double number = strtod(text, &end);

    if (end == text || *end != '\0' || !isfinite(number) || number < 0.0 || (above_zero && number <= 0.0) ||
        number > max) {
        fprintf(stderr, "%s: --%s is '%s', must be a number %s %g\n", name, option, text,
                above_zero ? "above 0 and up to" : "from 0 to", max);
        return ARGUMENTS_WRONG;
    }
    *ret_number = number;
    return ARGUMENTS_TRAIN;
}

static enum arguments_outcome arguments_take_optimizer(const char *name, const char *text,
                                                       enum optimizer_kind *ret_kind) {
    for (enum optimizer_kind kind = 0; kind < OPTIMIZER_COUNT; kind++) {
        if (strcmp(text, optimizer_settings_of(kind)->name) == 0) {
            *ret_kind = kind;
            return ARGUMENTS_TRAIN;
        }
    }

    fprintf(stderr, "%s: --optimizer is '%s', must be one of", name, text);
    for (enum optimizer_kind kind = 0; kind < OPTIMIZER_COUNT; kind++)
        fprintf(stderr, " %s", optimizer_settings_of(kind)->name);
    fputc('\n', stderr);
    return ARGUMENTS_WRONG;
}

static enum arguments_outcome arguments_take(struct arguments *arguments, const struct example *example, int option) {
    const char *name = example->name;
    uint64_t whole = 0;

    switch (option) {
    case OPTION_LOGDIR:
        arguments->logdir = optarg;
        return ARGUMENTS_TRAIN;
    case OPTION_RUN:
        arguments->run = optarg;
        return ARGUMENTS_TRAIN;
    case OPTION_SOCKET:
        arguments->socket = optarg;
        return ARGUMENTS_TRAIN;
    case OPTION_STEPS:
        if (arguments_take_whole(name, "steps", optarg, 1, (uint64_t)steps_max, &whole) != ARGUMENTS_TRAIN)
            return ARGUMENTS_WRONG;
        arguments->steps = (int64_t)whole;
        return ARGUMENTS_TRAIN;
    case OPTION_SEED:
        return arguments_take_whole(name, "seed", optarg, 0, UINT64_MAX, &arguments->seed);
    case OPTION_OPTIMIZER:
        return arguments_take_optimizer(name, optarg, &arguments->optimizer);
    case OPTION_LEARNING_RATE:
        return arguments_take_real(name, "learning-rate", optarg, true, learning_rate_max, &arguments->learning_rate);
    case OPTION_MAX_STALL:
        return arguments_take_real(name, "max-stall", optarg, false, max_stall_max_seconds,
                                   &arguments->max_stall_seconds);
    case OPTION_NO_THINNING:
        arguments->no_thinning = true;
        return ARGUMENTS_TRAIN;
    case OPTION_NO_GRADIENTD:
        arguments->no_gradientd = true;
        return ARGUMENTS_TRAIN;
    case OPTION_WEIGHTS:
        arguments->weights = optarg;
        return ARGUMENTS_TRAIN;
    case OPTION_HELP:
        arguments_print_help(example);
        return ARGUMENTS_HELP;
    default: // getopt has said what is wrong
        return ARGUMENTS_WRONG;
    }
}

enum arguments_outcome arguments_parse(struct arguments *ret_arguments, const struct example *example, int argc,
                                       char **argv) {
    *ret_arguments = (struct arguments){
        .logdir = "runs",
        .steps = example->steps,
        .seed = 1,
        .optimizer = example->optimizer,
        .max_stall_seconds = 1.0,
    };

    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        enum arguments_outcome outcome = arguments_take(ret_arguments, example, option);
        if (outcome != ARGUMENTS_TRAIN)
            return outcome;
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument '%s'; see --help\n", example->name, argv[optind]);
        return ARGUMENTS_WRONG;
    }

    // Both defaults depend on the optimiser, which may come last.
    if (ret_arguments->learning_rate <= 0.0)
        ret_arguments->learning_rate = example->learning_rates[ret_arguments->optimizer];
    if (!ret_arguments->run) {
        snprintf(ret_arguments->default_run, sizeof(ret_arguments->default_run), "%s-%s", example->name,
                 optimizer_settings_of(ret_arguments->optimizer)->name);
        ret_arguments->run = ret_arguments->default_run;
    }
    if (ret_arguments->logdir[0] == '\0')
        ret_arguments->no_gradientd = true;
    return ARGUMENTS_TRAIN;
}
