#include "arguments.h"

#include <assert.h>
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
    OPTION_SCHEDULE,
    OPTION_MAX_STALL,
    OPTION_NO_THINNING,
    OPTION_NO_GRADIENTD,
    OPTION_WEIGHTS,
    OPTION_HELP,
    OPTION_OF_EXAMPLE, // the first of them
};

static const char *const schedule_names[] = {[SCHEDULE_CONSTANT] = "constant", [SCHEDULE_SQRT] = "sqrt", NULL};

static const struct option common_options[] = {
    {"logdir", required_argument, NULL, OPTION_LOGDIR},
    {"run", required_argument, NULL, OPTION_RUN},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"steps", required_argument, NULL, OPTION_STEPS},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"optimizer", required_argument, NULL, OPTION_OPTIMIZER},
    {"learning-rate", required_argument, NULL, OPTION_LEARNING_RATE},
    {"schedule", required_argument, NULL, OPTION_SCHEDULE},
    {"max-stall", required_argument, NULL, OPTION_MAX_STALL},
    {"no-thinning", no_argument, NULL, OPTION_NO_THINNING},
    {"no-gradientd", no_argument, NULL, OPTION_NO_GRADIENTD},
    {"weights", required_argument, NULL, OPTION_WEIGHTS},
    {"help", no_argument, NULL, OPTION_HELP},
};

enum { COMMON_OPTIONS = sizeof(common_options) / sizeof(common_options[0]) };

static void arguments_print_option(const struct example_option *option) {
    printf("  --%s %s  %s", option->name, option->choices ? "NAME" : "N", option->help);
    for (size_t i = 0; option->choices && option->choices[i]; i++)
        printf("%s %s", i == 0 ? ":" : "", option->choices[i]);
    if (option->choices)
        printf(" (%s)\n", option->choices[option->value]);
    else
        printf(" (%" PRIu64 ")\n", option->value);
}

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
        if (example->learning_rates[kind] > 0.0)
            printf(" %s %g", optimizer_settings_of(kind)->name, example->learning_rates[kind]);
    printf(
        "%s\n"
        "  --schedule NAME      of the learning rate: constant, or sqrt: divided by the root of the step (constant)\n",
        example->learning_rates[example->optimizer] > 0.0 ? "" : " the problem's");
    for (size_t i = 0; i < example->n_options; i++)
        arguments_print_option(&example->options[i]);
    printf("\n"
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

static enum arguments_outcome arguments_take_choice(const char *name, const char *option, const char *text,
                                                    const char *const *choices, uint64_t *ret_index) {
    for (uint64_t i = 0; choices[i]; i++) {
        if (strcmp(text, choices[i]) == 0) {
            *ret_index = i;
            return ARGUMENTS_TRAIN;
        }
    }

    fprintf(stderr, "%s: --%s is '%s', must be one of", name, option, text);
    for (size_t i = 0; choices[i]; i++)
        fprintf(stderr, " %s", choices[i]);
    fputc('\n', stderr);
    return ARGUMENTS_WRONG;
}

static enum arguments_outcome arguments_take_of_example(const char *name, struct example_option *option,
                                                        const char *text) {
    return option->choices ? arguments_take_choice(name, option->name, text, option->choices, &option->value)
                           : arguments_take_whole(name, option->name, text, option->min, option->max, &option->value);
}

static enum arguments_outcome arguments_take_optimizer(const char *name, const char *text,
                                                       enum optimizer_kind *ret_kind) {
    const char *names[OPTIMIZER_COUNT + 1] = {NULL};
    uint64_t kind = 0;

    for (size_t i = 0; i < OPTIMIZER_COUNT; i++)
        names[i] = optimizer_settings_of((enum optimizer_kind)i)->name;
    enum arguments_outcome outcome = arguments_take_choice(name, "optimizer", text, names, &kind);
    if (outcome == ARGUMENTS_TRAIN)
        *ret_kind = (enum optimizer_kind)kind;
    return outcome;
}

static enum arguments_outcome arguments_take_schedule(const char *name, const char *text,
                                                      enum optimizer_schedule *ret_schedule) {
    uint64_t schedule = 0;
    enum arguments_outcome outcome = arguments_take_choice(name, "schedule", text, schedule_names, &schedule);
    if (outcome == ARGUMENTS_TRAIN)
        *ret_schedule = (enum optimizer_schedule)schedule;
    return outcome;
}

static enum arguments_outcome arguments_take(struct arguments *arguments, const struct example *example, int option) {
    const char *name = example->name;
    uint64_t whole = 0;

    if (option >= OPTION_OF_EXAMPLE)
        return arguments_take_of_example(name, &example->options[option - OPTION_OF_EXAMPLE], optarg);
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
        return arguments_take_optimizer(name, optarg, &arguments->optimizer.kind);
    case OPTION_LEARNING_RATE:
        return arguments_take_real(name, "learning-rate", optarg, true, learning_rate_max,
                                   &arguments->optimizer.learning_rate);
    case OPTION_SCHEDULE:
        return arguments_take_schedule(name, optarg, &arguments->optimizer.schedule);
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

const char *arguments_schedule(const struct arguments *arguments) {
    return schedule_names[arguments->optimizer.schedule];
}

// All options of an example, as getopt takes them.
static void arguments_list_options(const struct example *example,
                                   struct option options[COMMON_OPTIONS + EXAMPLE_OPTIONS_MAX + 1]) {
    assert(example->n_options <= EXAMPLE_OPTIONS_MAX);
    memset(options, 0, (COMMON_OPTIONS + EXAMPLE_OPTIONS_MAX + 1) * sizeof(*options));
    memcpy(options, common_options, sizeof(common_options));
    for (size_t i = 0; i < example->n_options; i++)
        options[COMMON_OPTIONS + i] =
            (struct option){example->options[i].name, required_argument, NULL, OPTION_OF_EXAMPLE + (int)i};
}

// The defaults that depend on options which may come last.
static void arguments_complete(struct arguments *arguments, const struct example *example) {
    struct optimizer_choice *optimizer = &arguments->optimizer;
    if (optimizer->learning_rate <= 0.0)
        optimizer->learning_rate = example->learning_rates[optimizer->kind];
    if (!arguments->run) {
        snprintf(arguments->default_run, sizeof(arguments->default_run), "%s-%s", example->name,
                 optimizer_settings_of(optimizer->kind)->name);
        arguments->run = arguments->default_run;
    }
    if (arguments->logdir[0] == '\0')
        arguments->no_gradientd = true;
}

enum arguments_outcome arguments_parse(struct arguments *ret_arguments, const struct example *example, int argc,
                                       char **argv) {
    *ret_arguments = (struct arguments){
        .logdir = "runs",
        .steps = example->steps,
        .seed = 1,
        .optimizer = {.kind = example->optimizer},
        .example = example,
        .max_stall_seconds = 1.0,
    };

    struct option options[COMMON_OPTIONS + EXAMPLE_OPTIONS_MAX + 1];
    arguments_list_options(example, options);
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

    arguments_complete(ret_arguments, example);
    return ARGUMENTS_TRAIN;
}
