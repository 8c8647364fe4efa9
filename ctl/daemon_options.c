#include "daemon_options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MS_PER_SECOND = 1000 };

static const double TIMEOUT_DEFAULT = 5.0; // seconds; a daemon that works answers within a turn of its loop
static const double INTERVAL_DEFAULT = 1.0;
static const double SECONDS_MIN = 0.01, SECONDS_MAX = 86400.0;
static const long COUNT_MAX = 1000000000;

enum { SOCKET = 1, TIMEOUT, JSON, FOLLOW, INTERVAL, COUNT };

static int bad_value(const struct gd_command *command, const char *option, const char *limits) {
    char problem[160];
    snprintf(problem, sizeof(problem), "%s must be %s, and is ", option, limits);
    return gd_command_usage_error(command, problem, optarg);
}

static int parse_seconds(const struct gd_command *command, const char *option, int *ret_ms) {
    char *end;
    double seconds = strtod(optarg, &end);
    if (end == optarg || *end || !(seconds >= SECONDS_MIN && seconds <= SECONDS_MAX))
        return bad_value(command, option, "0.01 to 86400 seconds");
    *ret_ms = (int)ceil(seconds * MS_PER_SECOND);
    return 0;
}

static int parse_count(const struct gd_command *command, unsigned *ret_count) {
    char *end;
    errno = 0;
    long count = strtol(optarg, &end, 10);
    if (end == optarg || *end || errno != 0 || count < 1 || count > COUNT_MAX)
        return bad_value(command, "--count", "1 to 1000000000");
    *ret_count = (unsigned)count;
    return 0;
}

static int take(const struct gd_command *command, int option, char **words, struct gd_daemon_options *options) {
    switch (option) {
    case SOCKET:
        options->socket = optarg;
        return 0;
    case TIMEOUT:
        return parse_seconds(command, "--timeout", &options->timeout_ms);
    case JSON:
        options->json = true;
        return 0;
    case FOLLOW:
        options->follow = true;
        return 0;
    case INTERVAL:
        return parse_seconds(command, "--interval", &options->interval_ms);
    case COUNT:
        return parse_count(command, &options->count);
    case ':':
        return gd_command_usage_error(command, "a value is missing after ", words[optind - 1]);
    default:
        return gd_command_usage_error(command, "unknown option ", words[optind - 1]);
    }
}

// The options that the command takes, which are fewer than there are. `ret_known` has room for all.
static void choose_known(unsigned takes, struct option *ret_known) {
    static const struct {
        struct option option;
        unsigned takes;
    } all[] = {
        {{"socket", required_argument, NULL, SOCKET}, 0},
        {{"timeout", required_argument, NULL, TIMEOUT}, 0},
        {{"json", no_argument, NULL, JSON}, 0},
        {{"follow", no_argument, NULL, FOLLOW}, GD_TAKES_FOLLOW},
        {{"interval", required_argument, NULL, INTERVAL}, GD_TAKES_INTERVAL},
        {{"count", required_argument, NULL, COUNT}, GD_TAKES_INTERVAL},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if ((all[i].takes & takes) == all[i].takes)
            *ret_known++ = all[i].option;
    *ret_known = (struct option){0};
}

int gd_daemon_options_parse(const struct gd_command *command, unsigned takes, int n_arguments, char **arguments,
                            struct gd_daemon_options *ret_options) {
    struct option known[COUNT + 1];
    struct gd_daemon_options options = {
        .timeout_ms = (int)(TIMEOUT_DEFAULT * MS_PER_SECOND),
        .interval_ms = (int)(INTERVAL_DEFAULT * MS_PER_SECOND),
    };
    char **words = arguments - 1; // getopt passes over the first
    int n_words = n_arguments + 1, option;

    choose_known(takes, known);
    opterr = 0; // what is wrong is ours to print
    while ((option = getopt_long(n_words, words, ":", known, NULL)) != -1) {
        int result = take(command, option, words, &options);
        if (result != 0)
            return result;
    }
    if (takes & GD_TAKES_RUN && optind < n_words)
        options.run = words[optind++];
    if (optind < n_words)
        return gd_command_usage_error(command, "unexpected argument ", words[optind]);
    *ret_options = options;
    return 0;
}
