// Trains a small neural network on handwritten digits while gradientd watches its gradients.
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "digits_data.h"
#include "digits_training.h"
#include "progress.h"
#include "weights.h"

enum { EVALUATION_INTERVAL = 50 }; // steps

static const struct example example = {
    .name = "digits",
    .summary = "Trains a 64-64-32-10 network on 1,437 handwritten digits and tests it on 360 others.",
    .steps = 1500,
    .optimizer = OPTIMIZER_ADAM,
    .learning_rates = {[OPTIMIZER_SGD] = 0.05,
                       [OPTIMIZER_ADAM] = 0.001,
                       [OPTIMIZER_ADAMW] = 0.005,
                       [OPTIMIZER_RMSPROP] = 0.003,
                       [OPTIMIZER_AMSGRAD] = 0.001,
                       [OPTIMIZER_ADAGRAD] = 0.05,
                       [OPTIMIZER_ADAFOM] = 0.005},
};

struct session {
    struct digits_data data;
    struct digits_training training;
    double train_accuracy, test_accuracy; // 0 to 1, when last evaluated
};

static void session_free(struct session *session) {
    digits_training_deinit(&session->training);
    free(session);
}

// Reads the data and draws the network; NULL after a line on stderr.
static struct session *session_new(const struct arguments *arguments) {
    struct session *session = calloc(1, sizeof(*session));
    if (!session) {
        fprintf(stderr, "digits: out of memory\n");
        return NULL;
    }
    if (digits_data_read(&session->data, EXAMPLES_DATA "/digits.csv.gz") < 0) {
        session_free(session);
        return NULL;
    }
    if (digits_training_init(&session->training, &session->data, arguments->seed, arguments->optimizer) < 0) {
        fprintf(stderr, "digits: out of memory\n");
        session_free(session);
        return NULL;
    }
    return session;
}

static void session_evaluate(struct session *session, int64_t step, struct gradientd_run *run) {
    session->train_accuracy = digits_training_accuracy(&session->training, 0, DIGITS_TRAIN);
    session->test_accuracy = digits_training_accuracy(&session->training, DIGITS_TRAIN, DIGITS_COUNT);

    struct gradientd_scalar scalars[] = {
        {"train/accuracy", (float)session->train_accuracy},
        {"test/accuracy", (float)session->test_accuracy},
    };
    gradientd_scalars(run, step, 0.0, scalars, sizeof(scalars) / sizeof(scalars[0]));
}

static struct gradientd_run *session_attach(const struct session *session, const struct arguments *arguments) {
    struct gradientd_group groups[MLP_TENSORS];
    digits_training_describe(&session->training, groups);
    struct gradientd_hparam hparams[] = {
        gradientd_hparam_text("model", "64-64-32-10"),
        gradientd_hparam_number("batch_size", DIGITS_BATCH),
    };
    return attachment_open(arguments, &(struct attachment){.groups = groups,
                                                           .n_groups = MLP_TENSORS,
                                                           .hparams = hparams,
                                                           .n_hparams = sizeof(hparams) / sizeof(hparams[0])});
}

static void session_train(struct session *session, int64_t steps, struct gradientd_run *run) {
    struct progress progress;

    progress_init(&progress, steps);
    for (int64_t step = 1; step <= steps; step++) {
        double loss = digits_training_step(&session->training);
        digits_training_submit(&session->training, run, step, loss);

        if (step % EVALUATION_INTERVAL == 0 || step == steps)
            session_evaluate(session, step, run);
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4f  test accuracy %.1f %%", loss, 100.0 * session->test_accuracy);
    }
}

int main(int argc, char **argv) {
    struct arguments arguments;
    enum arguments_outcome outcome = arguments_parse(&arguments, &example, argc, argv);
    if (outcome != ARGUMENTS_TRAIN)
        return outcome == ARGUMENTS_HELP ? EXIT_SUCCESS : 2;

    struct session *session = session_new(&arguments);
    if (!session)
        return EXIT_FAILURE;
    struct gradientd_run *run = session_attach(session, &arguments);
    session_train(session, arguments.steps, run);

    printf("train accuracy %.1f %%\n", 100.0 * session->train_accuracy);
    printf("test accuracy %.1f %%\n", 100.0 * session->test_accuracy);
    // Tells whether two runs ended at the same weights, to the last bit.
    const struct mlp *mlp = &session->training.mlp;
    printf("weights crc32 %08lx\n",
           crc32_z(0, (const unsigned char *)mlp->parameters, mlp->n_parameters * sizeof(float)));
    attachment_close(run);
    int result = weights_write(arguments.weights, mlp->parameters, mlp->n_parameters);
    session_free(session);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
