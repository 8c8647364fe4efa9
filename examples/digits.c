// Trains a small neural network on handwritten digits while gradientd watches its gradients.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "digits_data.h"
#include "mlp.h"
#include "optimizer.h"
#include "progress.h"
#include "random.h"
#include "weights.h"

enum {
    BATCH = 32,
    EVALUATION_BATCH = DIGITS_TEST,
    EVALUATION_INTERVAL = 50, // steps
};

static const struct example example = {
    .name = "digits",
    .summary = "Trains a 64-64-32-10 network on 1,437 handwritten digits and tests it on 360 others.",
    .steps = 1500,
    .optimizer = OPTIMIZER_ADAM,
    .learning_rates = {[OPTIMIZER_SGD] = 0.2,
                       [OPTIMIZER_ADAM] = 0.005,
                       [OPTIMIZER_ADAMW] = 0.005,
                       [OPTIMIZER_RMSPROP] = 0.003,
                       [OPTIMIZER_AMSGRAD] = 0.005,
                       [OPTIMIZER_ADAGRAD] = 0.05,
                       [OPTIMIZER_ADAFOM] = 0.005},
};

struct training {
    struct digits_data data;
    struct random_source source;
    size_t order[DIGITS_TRAIN]; // of the training images in this epoch
    size_t n_used;              // of them
    struct mlp mlp;
    struct optimizer optimizer;
    double train_accuracy, test_accuracy; // 0 to 1, when last evaluated
};

static int training_init(struct training *training, const struct arguments *arguments) {
    if (digits_data_read(&training->data, EXAMPLES_DATA "/digits.csv.gz") < 0)
        return -1;

    random_init(&training->source, arguments->seed);
    for (size_t i = 0; i < DIGITS_TRAIN; i++)
        training->order[i] = i;
    training->n_used = DIGITS_TRAIN; // the first batch begins an epoch

    if (mlp_init(&training->mlp, EVALUATION_BATCH, &training->source) < 0 ||
        optimizer_init(&training->optimizer, arguments->optimizer, arguments->learning_rate,
                       training->mlp.n_parameters) < 0) {
        fprintf(stderr, "digits: out of memory\n");
        return -1;
    }
    return 0;
}

// Allocates all of it, zeroed; NULL after a line on stderr.
static struct training *training_new(const struct arguments *arguments) {
    struct training *training = calloc(1, sizeof(*training));
    if (!training) {
        fprintf(stderr, "digits: out of memory\n");
        return NULL;
    }
    if (training_init(training, arguments) < 0) {
        optimizer_deinit(&training->optimizer);
        mlp_deinit(&training->mlp);
        free(training);
        return NULL;
    }
    return training;
}

static void training_free(struct training *training) {
    optimizer_deinit(&training->optimizer);
    mlp_deinit(&training->mlp);
    free(training);
}

// One optimiser step on the next batch; returns the loss before it. The gradient stays in `mlp.gradients`.
static double training_step(struct training *training) {
    struct mlp *mlp = &training->mlp;
    uint8_t labels[BATCH];

    if (training->n_used + BATCH > DIGITS_TRAIN) {
        random_shuffle(&training->source, training->order, DIGITS_TRAIN);
        training->n_used = 0;
    }
    for (size_t b = 0; b < BATCH; b++) {
        size_t image = training->order[training->n_used++];
        memcpy(mlp_images(mlp) + b * MLP_INPUTS, training->data.pixels[image], sizeof(training->data.pixels[image]));
        labels[b] = training->data.labels[image];
    }

    double loss = mlp_loss_and_gradient(mlp, labels, BATCH);
    optimizer_begin_step(&training->optimizer);
    for (size_t i = 0; i < mlp->n_parameters; i++)
        mlp->parameters[i] =
            (float)optimizer_update(&training->optimizer, i, (double)mlp->parameters[i], (double)mlp->gradients[i]);
    return loss;
}

// The share of the images begin..end-1 that the network gets right.
static double training_accuracy(struct training *training, size_t begin, size_t end) {
    size_t correct = 0;

    for (size_t first = begin; first < end; first += EVALUATION_BATCH) {
        size_t n = end - first < EVALUATION_BATCH ? end - first : EVALUATION_BATCH;
        memcpy(mlp_images(&training->mlp), training->data.pixels[first], n * sizeof(training->data.pixels[first]));
        correct += mlp_count_correct(&training->mlp, training->data.labels + first, n);
    }
    return (double)correct / (double)(end - begin);
}

static void training_evaluate(struct training *training, int64_t step, struct gradientd_run *run) {
    training->train_accuracy = training_accuracy(training, 0, DIGITS_TRAIN);
    training->test_accuracy = training_accuracy(training, DIGITS_TRAIN, DIGITS_COUNT);

    struct gradientd_scalar scalars[] = {
        {"train/accuracy", (float)training->train_accuracy},
        {"test/accuracy", (float)training->test_accuracy},
    };
    gradientd_scalars(run, step, 0.0, scalars, sizeof(scalars) / sizeof(scalars[0]));
}

static struct gradientd_run *training_attach(const struct training *training, const struct arguments *arguments) {
    struct gradientd_group groups[MLP_TENSORS];
    for (size_t i = 0; i < MLP_TENSORS; i++)
        groups[i] =
            (struct gradientd_group){.name = training->mlp.tensors[i].name, .numel = training->mlp.tensors[i].n};
    return attachment_open(arguments, groups, MLP_TENSORS);
}

static void training_run(struct training *training, int64_t steps, struct gradientd_run *run) {
    struct progress progress;
    const void *gradients[MLP_TENSORS];

    progress_init(&progress, steps);
    for (size_t i = 0; i < MLP_TENSORS; i++)
        gradients[i] = training->mlp.gradients + training->mlp.tensors[i].offset;

    for (int64_t step = 1; step <= steps; step++) {
        double loss = training_step(training);

        struct gradientd_scalar scalars[] = {{"train/loss", (float)loss}};
        gradientd_submit(run,
                         &(struct gradientd_step){.step = step,
                                                  .learning_rates = &training->optimizer.learning_rate,
                                                  .scalars = scalars,
                                                  .n_scalars = 1},
                         gradients);

        if (step % EVALUATION_INTERVAL == 0 || step == steps)
            training_evaluate(training, step, run);
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4f  test accuracy %.1f %%", loss, 100.0 * training->test_accuracy);
    }
}

int main(int argc, char **argv) {
    struct arguments arguments;
    enum arguments_outcome outcome = arguments_parse(&arguments, &example, argc, argv);
    if (outcome != ARGUMENTS_TRAIN)
        return outcome == ARGUMENTS_HELP ? EXIT_SUCCESS : 2;

    struct training *training = training_new(&arguments);
    if (!training)
        return EXIT_FAILURE;
    struct gradientd_run *run = training_attach(training, &arguments);
    training_run(training, arguments.steps, run);

    printf("train accuracy %.1f %%\n", 100.0 * training->train_accuracy);
    printf("test accuracy %.1f %%\n", 100.0 * training->test_accuracy);
    // Tells whether two runs ended at the same weights, to the last bit.
    printf("weights crc32 %08lx\n",
           crc32_z(0, (const unsigned char *)training->mlp.parameters, training->mlp.n_parameters * sizeof(float)));
    attachment_close(run);
    int result = weights_write(arguments.weights, training->mlp.parameters, training->mlp.n_parameters);
    training_free(training);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
