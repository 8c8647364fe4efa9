#include "attachment.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The rule and its variant, as the optimiser computes it.
static struct gradientd_optimizer attachment_describe_optimizer(const struct optimizer_settings *settings) {
    struct gradientd_optimizer optimizer = {.rule = settings->rule};

    if (settings->rule == GRADIENTD_ADAM || settings->rule == GRADIENTD_ADAMW || settings->rule == GRADIENTD_RMSPROP)
        optimizer.bias_correction = settings->bias_corrected ? GRADIENTD_BIAS_CORRECTED : GRADIENTD_NO_BIAS_CORRECTION;
    if (settings->rule == GRADIENTD_AMSGRAD)
        optimizer.maximum_of = settings->bias_corrected ? GRADIENTD_RAW_THEN_CORRECTED : GRADIENTD_UNCORRECTED;
    return optimizer;
}

enum {
    COMMON_HPARAMS = 3,
    HPARAMS_MAX = COMMON_HPARAMS + EXAMPLE_OPTIONS_MAX + ATTACHMENT_HPARAMS_MAX,
};

// What TensorBoard's HParams tab compares runs by, beside the optimiser, which the daemon knows: the command line and
// what the example adds. Returns their number.
static size_t attachment_list_hparams(const struct arguments *arguments, const struct attachment *attachment,
                                      struct gradientd_hparam hparams[HPARAMS_MAX]) {
    const struct example *example = arguments->example;
    size_t n = 0;

    hparams[n++] = gradientd_hparam_number("seed", (double)arguments->seed);
    hparams[n++] = gradientd_hparam_number("steps", (double)arguments->steps);
    hparams[n++] = gradientd_hparam_text("schedule", arguments_schedule(arguments));
    for (size_t i = 0; i < example->n_options; i++) {
        const struct example_option *option = &example->options[i];
        hparams[n++] = option->choices ? gradientd_hparam_text(option->name, option->choices[option->value])
                                       : gradientd_hparam_number(option->name, (double)option->value);
    }
    for (size_t i = 0; i < attachment->n_hparams; i++)
        hparams[n++] = attachment->hparams[i];
    return n;
}

struct gradientd_run *attachment_open(const struct arguments *arguments, const struct attachment *attachment) {
    if (arguments->no_gradientd)
        return NULL;

    const struct optimizer_settings *settings =
        attachment->settings ? attachment->settings : optimizer_settings_of(arguments->optimizer.kind);
    struct gradientd_parameter_group parameter_group = {.beta2 = settings->beta2, .eps = settings->eps};
    struct gradientd_options options = gradientd_options_default();
    options.logdir = arguments->logdir;
    char run_name[sizeof(arguments->default_run) + 256]; // as long as a run's name may be
    snprintf(run_name, sizeof(run_name), "%s%s", arguments->run, attachment->run_suffix ? attachment->run_suffix : "");
    options.run = run_name;
    options.groups = attachment->groups;
    options.n_groups = attachment->n_groups;
    options.parameter_groups = &parameter_group;
    options.n_parameter_groups = 1;
    options.optimizer = attachment_describe_optimizer(settings);
    struct gradientd_hparam hparams[HPARAMS_MAX];
    options.n_hparams = attachment_list_hparams(arguments, attachment, hparams);
    options.hparams = hparams;
    options.probe_gradients = attachment->probe_gradients;
    options.parameters = attachment->parameters;
    options.outputs = attachment->outputs;
    options.output_examples = attachment->output_examples;
    options.outputs_per_example = attachment->outputs_per_example;
    options.labels_from_model = attachment->labels_from_model;
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
