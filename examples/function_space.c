// How far the network's function moves when its parameters move (Benjamin, Rolnick, Kording, "Measuring and
// regularizing networks in function space", arXiv 1805.08289): the distance of its outputs on a fixed set of images
// beside that of its parameters, from step to step, from epoch to epoch (--stride 44), and from the start.
#include <stdio.h>
#include <stdlib.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "digits_data.h"
#include "digits_training.h"
#include "progress.h"
#include "weights.h"

enum {
    STRIDE_MAX = 1000,
    EVALUATION_INTERVAL = 50, // steps
};

enum { OPTION_STRIDE };

static struct example_option options[] = {
    [OPTION_STRIDE] = {.name = "stride", .help = "steps a distance spans", .min = 1, .max = STRIDE_MAX, .value = 1},
};

static const struct example example = {
    .name = "function_space",
    .summary = "Trains the network of digits and compares how far its outputs and its parameters move.",
    .steps = 1500,
    .optimizer = OPTIMIZER_ADAM,
    .learning_rates = {[OPTIMIZER_SGD] = 0.05,
                       [OPTIMIZER_ADAM] = 0.002,
                       [OPTIMIZER_ADAMW] = 0.002,
                       [OPTIMIZER_RMSPROP] = 0.001,
                       [OPTIMIZER_AMSGRAD] = 0.002,
                       [OPTIMIZER_ADAGRAD] = 0.02,
                       [OPTIMIZER_ADAFOM] = 0.002},
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
};

struct session {
    struct digits_data data;
    struct digits_training training;
    float outputs[DIGITS_TEST][MLP_CLASSES]; // on the images to test with
};

// Hands over the gradient, and, where they are due, the parameters it was computed at and the outputs they give.
static void session_submit(struct session *session, struct gradientd_run *run, int64_t step, double loss) {
    struct digits_training *training = &session->training;
    const void *gradients[MLP_TENSORS], *parameters[MLP_TENSORS];
    bool due = (uint64_t)(step - 1) % options[OPTION_STRIDE].value == 0; // the first step is one with them

    digits_training_slices(training, training->mlp.gradients, gradients);
    digits_training_slices(training, training->mlp.parameters, parameters);
    if (due)
        digits_training_predict(training, DIGITS_TRAIN, DIGITS_COUNT, session->outputs[0]);
    gradientd_submit(run,
                     &(struct gradientd_step){.step = step,
                                              .learning_rates = &training->optimizer.learning_rate,
                                              .scalars = &(struct gradientd_scalar){"train/loss", (float)loss},
                                              .n_scalars = 1,
                                              .parameters = due ? parameters : NULL,
                                              .outputs = due ? session->outputs : NULL},
                     gradients);
}

static void session_train(struct session *session, int64_t steps, struct gradientd_run *run) {
    struct digits_training *training = &session->training;
    double accuracy = 0.0;
    struct progress progress;

    progress_init(&progress, steps);
    for (int64_t step = 1; step <= steps; step++) {
        size_t images[DIGITS_BATCH];
        digits_training_next_batch(training, images);
        double loss = digits_training_gradient(training, images, NULL, DIGITS_BATCH);
        session_submit(session, run, step, loss);
        digits_training_update(training);

        if (step % EVALUATION_INTERVAL == 0 || step == steps) {
            accuracy = digits_training_accuracy(training, DIGITS_TRAIN, DIGITS_COUNT);
            gradientd_scalars(run, step, 0.0, &(struct gradientd_scalar){"test/accuracy", (float)accuracy}, 1);
        }
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4f", loss);
    }
    printf("test accuracy %.1f %%\n", 100.0 * accuracy);
}

static struct gradientd_run *session_attach(const struct session *session, const struct arguments *arguments) {
    struct gradientd_group groups[MLP_TENSORS];
    struct gradientd_stream_options every = {.stride = (uint32_t)options[OPTION_STRIDE].value};
    digits_training_describe(&session->training, groups);
    return attachment_open(arguments, &(struct attachment){.groups = groups,
                                                           .n_groups = MLP_TENSORS,
                                                           .parameters = every,
                                                           .outputs = every,
                                                           .output_examples = DIGITS_TEST,
                                                           .outputs_per_example = MLP_CLASSES});
}

int main(int argc, char **argv) {
    static struct session session;
    struct arguments arguments;
    enum arguments_outcome outcome = arguments_parse(&arguments, &example, argc, argv);
    if (outcome != ARGUMENTS_TRAIN)
        return outcome == ARGUMENTS_HELP ? EXIT_SUCCESS : 2;
    if (digits_data_read(&session.data, EXAMPLES_DATA "/digits.csv.gz") < 0)
        return EXIT_FAILURE;
    if (digits_training_init(&session.training, &session.data, arguments.seed, arguments.optimizer) < 0) {
        fprintf(stderr, "function_space: out of memory\n");
        digits_training_deinit(&session.training);
        return EXIT_FAILURE;
    }

    struct gradientd_run *run = session_attach(&session, &arguments);
    session_train(&session, arguments.steps, run);
    attachment_close(run);
    const struct mlp *mlp = &session.training.mlp;
    int result = weights_write(arguments.weights, mlp->parameters, mlp->n_parameters);
    digits_training_deinit(&session.training);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
