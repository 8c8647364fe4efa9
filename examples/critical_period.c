// When does a blurred view harm a network for good? (Achille, Rovere, Soatto, "Critical learning periods in deep
// networks", arXiv 1711.08856.) A network sees sharp digits but for a window of epochs in which they are blurred, and
// has the same time to recover wherever the window was. Beside it goes the trace of the Fisher information while a
// network sees sharp digits all along: the paper finds it high where the window does most harm.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "digits_blur.h"
#include "digits_data.h"
#include "digits_microbatches.h"
#include "digits_training.h"
#include "progress.h"
#include "weights.h"

static const int64_t onsets[] = {0, 5, 10, 20, 30, 40, 60}; // epochs

enum {
    ONSETS = sizeof(onsets) / sizeof(onsets[0]),
    NETWORKS_MAX = 1000,
    EPOCHS_MAX = 1000,
    WATCHED_STEPS = 110 * DIGITS_STEPS_PER_EPOCH, // the last window's and its recovery
};

enum example_option_index { OPTION_WINDOW, OPTION_RECOVERY, OPTION_NETWORKS };

static struct example_option options[] = {
    [OPTION_WINDOW] = {.name = "window", .help = "epochs of blurred images", .max = EPOCHS_MAX, .value = 40},
    [OPTION_RECOVERY] = {.name = "recovery", .help = "epochs of sharp ones after them", .max = EPOCHS_MAX, .value = 10},
    [OPTION_NETWORKS] =
        {.name = "networks", .help = "trained for each window", .min = 1, .max = NETWORKS_MAX, .value = 5},
};

static const struct example example = {
    .name = "critical_period",
    .summary = "Blurs the digits for a window of epochs, early or late, and compares what is learned in the end.",
    .steps = WATCHED_STEPS,
    .optimizer = OPTIMIZER_SGD,
    .learning_rates = {[OPTIMIZER_SGD] = 0.05,
                       [OPTIMIZER_ADAM] = 0.001,
                       [OPTIMIZER_ADAMW] = 0.001,
                       [OPTIMIZER_RMSPROP] = 0.001,
                       [OPTIMIZER_AMSGRAD] = 0.001,
                       [OPTIMIZER_ADAGRAD] = 0.01,
                       [OPTIMIZER_ADAFOM] = 0.001},
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
};

struct experiment {
    struct digits_data sharp, blurred;
    const struct arguments *arguments;
    double sharp_accuracy[ONSETS];   // on the test images, of networks that saw sharp digits alone for as long
    double blurred_accuracy[ONSETS]; // of those whose window began there; both are sums over networks, then means
};

static int64_t epochs_of(enum example_option_index option) {
    return (int64_t)options[option].value;
}

static void train_epochs(struct digits_training *training, const struct digits_data *data, int64_t epochs) {
    training->data = data;
    for (int64_t step = 0; step < epochs * DIGITS_STEPS_PER_EPOCH; step++)
        digits_training_step(training);
}

static double test_accuracy(struct digits_training *training) {
    return digits_training_accuracy(training, DIGITS_TRAIN, DIGITS_COUNT);
}

// One network that sees sharp digits, as long as each of those with a window.
static int train_sharp(struct experiment *experiment, uint64_t seed) {
    struct digits_training training;
    int result = digits_training_init(&training, &experiment->sharp, seed, experiment->arguments->optimizer);
    int64_t trained = -epochs_of(OPTION_WINDOW) - epochs_of(OPTION_RECOVERY); // counted from the window's onset

    for (size_t i = 0; result == 0 && i < ONSETS; trained = onsets[i++]) {
        train_epochs(&training, &experiment->sharp, onsets[i] - trained);
        experiment->sharp_accuracy[i] += test_accuracy(&training);
    }
    digits_training_deinit(&training);
    return result;
}

// One network whose window begins at onsets[i].
static int train_blurred(struct experiment *experiment, uint64_t seed, size_t i) {
    struct digits_training training;
    int result = digits_training_init(&training, &experiment->sharp, seed, experiment->arguments->optimizer);

    if (result == 0) {
        train_epochs(&training, &experiment->sharp, onsets[i]);
        train_epochs(&training, &experiment->blurred, epochs_of(OPTION_WINDOW));
        train_epochs(&training, &experiment->sharp, epochs_of(OPTION_RECOVERY));
        experiment->blurred_accuracy[i] += test_accuracy(&training);
    }
    digits_training_deinit(&training);
    return result;
}

// Trains all networks but the one that is watched. Returns 0 or -ENOMEM.
static int train_all(struct experiment *experiment) {
    uint64_t networks = options[OPTION_NETWORKS].value;
    int result = 0;

    for (uint64_t k = 0; result == 0 && k < networks; k++) {
        uint64_t seed = experiment->arguments->seed + k;
        result = train_sharp(experiment, seed);
        for (size_t i = 0; result == 0 && i < ONSETS; i++)
            result = train_blurred(experiment, seed, i);
    }
    for (size_t i = 0; i < ONSETS; i++) {
        experiment->sharp_accuracy[i] /= (double)networks;
        experiment->blurred_accuracy[i] /= (double)networks;
    }
    return result;
}

// Writes and prints the accuracies at the steps at which the windows began, so that they stand below the Fisher trace.
static void report(const struct experiment *experiment, struct gradientd_run *run) {
    printf("blurred from epoch, test accuracy, and without a window\n");
    for (size_t i = 0; i < ONSETS; i++) {
        double harm = experiment->sharp_accuracy[i] - experiment->blurred_accuracy[i];
        struct gradientd_scalar scalars[] = {
            {"window/test_accuracy", (float)experiment->blurred_accuracy[i]},
            {"window/test_accuracy_without", (float)experiment->sharp_accuracy[i]},
            {"window/harm", (float)harm},
        };
        gradientd_scalars(run, onsets[i] * DIGITS_STEPS_PER_EPOCH, 0.0, scalars, sizeof(scalars) / sizeof(scalars[0]));
        printf("%3" PRId64 "  %.2f %%  %.2f %%\n", onsets[i], 100.0 * experiment->blurred_accuracy[i],
               100.0 * experiment->sharp_accuracy[i]);
    }
}

// The network that gradientd watches. Its gradients go to `run`, and to `fisher_run` those of the same images with
// labels that the network itself predicts.
struct watched {
    struct digits_training training;
    struct digits_microbatches parts;
    struct random_source label_source;
    struct gradientd_run *run, *fisher_run;
};

static void watched_submit(struct watched *watched, struct gradientd_run *run, int64_t step,
                           const struct gradientd_scalar *scalars, size_t n_scalars) {
    const void *gradients[MLP_TENSORS];
    digits_training_slices(&watched->training, watched->training.mlp.gradients, gradients);
    gradientd_submit(run,
                     &(struct gradientd_step){.step = step,
                                              .learning_rates = &watched->training.optimizer.learning_rate,
                                              .scalars = scalars,
                                              .n_scalars = n_scalars,
                                              .batch_size = DIGITS_BATCH,
                                              .squared_norms = watched->parts.squared_norms,
                                              .n_squared_norms = MICROBATCHES},
                     gradients);
}

static void watched_train(struct watched *watched, int64_t steps) {
    struct digits_training *training = &watched->training;
    struct progress progress;

    progress_init(&progress, steps);
    for (int64_t step = 1; step <= steps; step++) {
        size_t images[DIGITS_BATCH];
        digits_training_next_batch(training, images);
        digits_microbatches_gradient(&watched->parts, training, images, &watched->label_source);
        watched_submit(watched, watched->fisher_run, step, NULL, 0);

        double loss = digits_microbatches_gradient(&watched->parts, training, images, NULL);
        struct gradientd_scalar scalars[] = {{"train/loss", (float)loss}, {"test/accuracy", 0.0f}};
        bool evaluate = step % DIGITS_STEPS_PER_EPOCH == 0;
        if (evaluate)
            scalars[1].value = (float)test_accuracy(training);
        watched_submit(watched, watched->run, step, scalars, evaluate ? 2 : 1);
        digits_training_update(training);
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4f", loss);
    }
}

static void watched_attach(struct watched *watched, const struct arguments *arguments) {
    struct gradientd_group groups[MLP_TENSORS];
    digits_training_describe(&watched->training, groups);

    struct attachment attachment = {.groups = groups, .n_groups = MLP_TENSORS};
    watched->run = attachment_open(arguments, &attachment);
    attachment.run_suffix = "-fisher";
    attachment.labels_from_model = true;
    watched->fisher_run = attachment_open(arguments, &attachment);
}

static int watched_init(struct watched *watched, const struct digits_data *data, const struct arguments *arguments) {
    int result = digits_training_init(&watched->training, data, arguments->seed, arguments->optimizer);
    random_init(&watched->label_source, ~arguments->seed);
    return result < 0 ? result : digits_microbatches_init(&watched->parts, &watched->training);
}

static int experiment_run(struct experiment *experiment, struct watched *watched) {
    const struct arguments *arguments = experiment->arguments;
    if (watched_init(watched, &experiment->sharp, arguments) < 0 || train_all(experiment) < 0) {
        fprintf(stderr, "critical_period: out of memory\n");
        return EXIT_FAILURE;
    }

    watched_attach(watched, arguments);
    watched_train(watched, arguments->steps);
    report(experiment, watched->run);
    attachment_close(watched->run);
    attachment_close(watched->fisher_run);
    const struct mlp *mlp = &watched->training.mlp;
    return weights_write(arguments->weights, mlp->parameters, mlp->n_parameters) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    static struct experiment experiment;
    static struct arguments arguments; // lives as long as the experiment that points to it
    struct watched watched = {0};
    enum arguments_outcome outcome = arguments_parse(&arguments, &example, argc, argv);
    if (outcome != ARGUMENTS_TRAIN)
        return outcome == ARGUMENTS_HELP ? EXIT_SUCCESS : 2;
    if (digits_data_read(&experiment.sharp, EXAMPLES_DATA "/digits.csv.gz") < 0)
        return EXIT_FAILURE;

    digits_blur(&experiment.blurred, &experiment.sharp);
    experiment.arguments = &arguments;
    int result = experiment_run(&experiment, &watched);
    digits_microbatches_deinit(&watched.parts);
    digits_training_deinit(&watched.training);
    return result;
}
