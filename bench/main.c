// gradientd-bench: how close the daemon comes to the memory's speed, and what it costs the trainer. docs/performance.md
// says how to read it.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { REPETITIONS = 21, REPETITIONS_QUICK = 9, ELEMENTS = 25000000 };

static const struct {
    const char *name;
    bench_part *run;
} parts[] = {
    {"kernels", bench_kernels},   {"whole", bench_whole},           {"stalls", bench_stalls},
    {"training", bench_training}, {"throughput", bench_throughput}, {"scalars", bench_scalars},
    {"against", bench_against},   {"scaling", bench_scaling},
};

static const char usage[] =
    "Usage: gradientd-bench [OPTION...]\n"
    "\n"
    "Compares, in one run and in turns, what gradientd does with what bounds it: a plain read of the same bytes, "
    "memcpy,\n"
    "a plain socket. Medians with quartiles; see docs/performance.md.\n"
    "\n"
    "  --quick          fewer repetitions, shorter series: under 45 s without --peers\n"
    "  --json           an array with one object a row: name, value, goal (or null), unit, better (lower or higher),\n"
    "                   low and high (quartiles), repetitions\n"
    "  --only PART      kernels, whole, stalls, training, throughput, scalars, against or scaling; may be repeated\n"
    "  --peers PYTHON   an interpreter that has torch, numpy, tensorboard and tensorboardX: adds what people use "
    "today\n"
    "  --daemon PATH    the daemon (default: the one of this build)\n"
    "  --help\n";

static _Noreturn void fail_usage(const char *what, const char *value) {
    fprintf(stderr, "gradientd-bench: %s%s; see gradientd-bench --help\n", what, value);
    exit(2);
}

// The bit of a part's name.
static unsigned part_bit(const char *name) {
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (strcmp(parts[i].name, name) == 0)
            return 1u << i;
    fail_usage("there is no part ", name);
}

int main(int argc, char **argv) {
    static const struct option long_options[] = {
        {"quick", no_argument, NULL, 'q'},
        {"json", no_argument, NULL, 'j'},
        {"only", required_argument, NULL, 'o'},
        {"peers", required_argument, NULL, 'p'},
        {"daemon", required_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct bench_settings settings = {.repetitions = REPETITIONS, .elements = ELEMENTS, .daemon = BENCH_DAEMON};
    bool json = false;
    unsigned wanted = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 'q')
            settings.quick = true;
        else if (option == 'j')
            json = true;
        else if (option == 'o')
            wanted |= part_bit(optarg);
        else if (option == 'p')
            settings.python = optarg;
        else if (option == 'd')
            settings.daemon = optarg;
        else if (option == 'h') {
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        } else
            fail_usage("unknown option", "");
    }
    if (optind < argc)
        fail_usage("unknown argument ", argv[optind]);
    if (settings.quick)
        settings.repetitions = REPETITIONS_QUICK;

    struct bench_report *report = bench_report_new(json);
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (wanted == 0 || wanted & 1u << i)
            parts[i].run(&settings, report);
    bench_report_end(report);
    return EXIT_SUCCESS;
}
