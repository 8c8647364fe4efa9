#include "attachment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COMMON_HPARAMS = 2 };

// What TensorBoard's HParams tab compares runs by, beside the optimiser, which the daemon knows. Returns their number.
static size_t attachment_list_hparams(const struct arguments *arguments, const struct attachment *attachment,
                                      struct gradientd_hparam hparams[COMMON_HPARAMS + ATTACHMENT_HPARAMS_MAX]) {
    hparams[0] = gradientd_hparam_number("seed", (double)arguments->seed);
    hparams[1] = gradientd_hparam_number("steps", (double)arguments->steps);
    for (size_t i = 0; i < attachment->n_hparams; i++)
        hparams[COMMON_HPARAMS + i] = attachment->hparams[i];
    return COMMON_HPARAMS + attachment->n_hparams;
}

struct gradientd_run *attachment_open(const struct arguments *arguments, const struct attachment *attachment) {
    if (arguments->no_gradientd)
        return NULL;

    const struct optimizer_settings *settings = optimizer_settings_of(arguments->optimizer);
    struct gradientd_parameter_group parameter_group = {.beta2 = settings->beta2, .eps = settings->eps};
    struct gradientd_options options = gradientd_options_default();
    options.logdir = arguments->logdir;
    options.run = arguments->run;
    options.groups = attachment->groups;
    options.n_groups = attachment->n_groups;
    options.parameter_groups = &parameter_group;
    options.n_parameter_groups = 1;
    options.optimizer.rule = settings->rule;
    struct gradientd_hparam hparams[COMMON_HPARAMS + ATTACHMENT_HPARAMS_MAX];
    options.n_hparams = attachment_list_hparams(arguments, attachment, hparams);
    options.hparams = hparams;
    options.no_thinning = arguments->no_thinning;
    options.max_stall = arguments->max_stall_seconds;
    options.socket = arguments->socket;
    if (!arguments->socket) {
        options.private_daemon = true;
        // The daemon built beside the example, unless it has been moved.
        options.daemon_path = access(BUILD_DAEMON, X_OK) == 0 ? BUILD_DAEMON : NULL;
    }

    struct gradientd_run *run = NULL;
    struct gradientd_error error = {0};
    if (gradientd_open(&options, &run, &error) < 0) {
        fprintf(stderr, "warning: training goes on without gradientd: %s\n", error.text);
        return NULL;
    }
    return run;
}

void attachment_close(struct gradientd_run *run) {
    if (!run)
        return;

    uint64_t skipped = gradientd_skipped(run);
    const char *path_of_run = gradientd_event_path(run);
    char *path = path_of_run ? strdup(path_of_run) : NULL; // the run's own goes with it
    int result = gradientd_close(run, GRADIENTD_SUCCESS);

    if (path)
        printf("event file %s%s\n", path, result == GRADIENTD_OK ? "" : " (incomplete)");
    printf("skipped steps %" PRIu64 "\n", skipped);
    free(path);
}
