// Kills the daemon at random instants of a busy run, then at each of its fault points, and trainers at random instants:
// what files hold afterwards is what was promised. Everything that is drawn is drawn from the seed.
//
//     crash [--seed N] [--kills N] [--points] [--trainers N] [--directory DIR] DAEMON
//
// DAEMON is one built with GD_FAULTS. The event files of trainers that were killed stay in DIR/killed-*, if it is
// given. Ends with status 0 only if all held.
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crash.h"

struct arguments {
    uint64_t seed;
    uint32_t kills, trainers;
    bool points;
    const char *directory, *daemon;
};

static void parse(int argc, char **argv, struct arguments *arguments) {
    static const struct option known[] = {
        {"seed", required_argument, NULL, 's'},      {"kills", required_argument, NULL, 'k'},
        {"points", no_argument, NULL, 'p'},          {"trainers", required_argument, NULL, 't'},
        {"directory", required_argument, NULL, 'd'}, {0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        char *end = NULL;
        uint64_t number = optarg && option != 'd' ? strtoull(optarg, &end, 10) : 0;
        if (option == 's')
            arguments->seed = number;
        else if (option == 'k')
            arguments->kills = (uint32_t)number;
        else if (option == 't')
            arguments->trainers = (uint32_t)number;
        else if (option == 'p')
            arguments->points = true;
        else if (option == 'd')
            arguments->directory = optarg;
        if (option == '?' || (end && (*end || end == optarg)))
            optind = argc + 1;
    }
    if (optind != argc - 1 || (!arguments->kills && !arguments->points && !arguments->trainers)) {
        fputs("usage: crash [--seed N] [--kills N] [--points] [--trainers N] [--directory DIR] DAEMON\n", stderr);
        exit(2);
    }
    arguments->daemon = argv[optind];
}

int main(int argc, char **argv) {
    struct arguments arguments = {.seed = 1};
    struct crash_daemon daemon;
    parse(argc, argv, &arguments);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (crash_daemon_init(&daemon, arguments.daemon, arguments.directory) < 0)
        return EXIT_FAILURE;
    int result = 0;
    if (arguments.trainers > 0) // first: it forks, and has no thread yet
        result = crash_kill_trainers(&daemon, arguments.trainers, arguments.seed);
    if (result == 0 && arguments.points)
        result = crash_visit_points(&daemon, arguments.seed);
    if (result == 0 && arguments.kills > 0)
        result = crash_kill_daemons(&daemon, arguments.kills, arguments.seed);
    if (result < 0) {
        fprintf(stderr, "crash: with seed %llu; the daemon's log:\n", (unsigned long long)arguments.seed);
        crash_daemon_print_log(&daemon);
        if (daemon.pid > 0)
            kill(daemon.pid, SIGKILL);
    }
    crash_daemon_deinit(&daemon);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
