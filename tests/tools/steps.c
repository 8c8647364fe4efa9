// A trainer that goes on when it is told to: reads step numbers from stdin, a line each, submits all steps up to there
// and prints `step N`. The end of the input closes the run. Finds the daemon where every client looks for it. Wall
// times go by the step's number, so that the files of two such runs of one name have the same bytes.
//
//     steps RUN [LOGDIR]
//
// Prints `event PATH` first. Whatever fails is said on stderr and ends it with status 1.
#include <stdio.h>
#include <stdlib.h>

#include "gradientd/client.h"

enum { ELEMENTS = 100 };

static const double MAX_STALL_SECONDS = 20.0;
static const double WALL_TIME = 1.7e9; // of the file's first records

static int fail(const char *what, const char *text) {
    fprintf(stderr, "steps: %s: %s\n", what, text);
    return EXIT_FAILURE;
}

static struct gradientd_run *open_run(const char *name, const char *logdir) {
    const struct gradientd_group groups[] = {{.name = "weights", .numel = ELEMENTS}};
    const struct gradientd_parameter_group parameter_groups[] = {{.beta2 = 0.999, .eps = 1e-8}};
    struct gradientd_options options = gradientd_options_default();
    options.run = name;
    options.logdir = logdir;
    options.groups = groups;
    options.n_groups = 1;
    options.parameter_groups = parameter_groups;
    options.n_parameter_groups = 1;
    options.optimizer.rule = GRADIENTD_ADAM;
    options.max_stall = MAX_STALL_SECONDS;
    options.wall_time = WALL_TIME;

    struct gradientd_run *run;
    struct gradientd_error error;
    if (gradientd_open(&options, &run, &error) < 0)
        fail("open", error.text);
    return run;
}

static int submit(struct gradientd_run *run, long step) {
    float gradient[ELEMENTS];
    const void *gradients[] = {gradient};
    const double learning_rate = 1e-3;
    for (int i = 0; i < ELEMENTS; i++)
        gradient[i] = (float)((step * 7 + i * 3) % 11 - 5) + 0.25f;
    const struct gradientd_step described = {
        .step = step,
        .wall_time = WALL_TIME + (double)step,
        .learning_rates = &learning_rate,
    };
    return gradientd_submit(run, &described, gradients);
}

int main(int argc, char **argv) {
    char line[32];
    if (argc < 2 || argc > 3)
        return fail("usage", "steps RUN [LOGDIR]");
    struct gradientd_run *run = open_run(argv[1], argc > 2 ? argv[2] : NULL);
    if (!run)
        return EXIT_FAILURE;
    printf("event %s\n", gradientd_event_path(run));
    fflush(stdout);

    for (long step = 0; fgets(line, sizeof(line), stdin);) {
        for (long last = strtol(line, NULL, 10); step < last;)
            if (submit(run, ++step) != GRADIENTD_OK)
                return fail("submit", gradientd_last_error(run));
        printf("step %ld\n", step);
        fflush(stdout);
    }
    return gradientd_close(run, GRADIENTD_SUCCESS) == GRADIENTD_OK ? EXIT_SUCCESS : fail("close", "incomplete");
}
