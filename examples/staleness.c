// Gradients that come late (Dai et al., "Toward understanding the impact of staleness in distributed machine learning",
// arXiv 1810.03264). Several workers train one network: by the time a worker hands in a gradient, the others have
// moved the parameters. How much later the training gets where it would have been is compared with the coherence of the
// gradient on a fixed set of images, which the paper says decides what staleness is tolerated.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "digits_data.h"
#include "digits_training.h"
#include "progress.h"
#include "weights.h"

enum {
    STALENESS_MAX = 256,
    PROBE_IMAGES = 1000,
    PROBE_STRIDE_MAX = 1000,
    EVALUATION_INTERVAL = 10, // steps
};

enum example_option_index { OPTION_STALENESS, OPTION_PROBE_STRIDE, OPTION_TARGET };

static struct example_option options[] = {
    [OPTION_STALENESS] = {.name = "staleness", .help = "steps a gradient is late, at most", .max = STALENESS_MAX},
    [OPTION_PROBE_STRIDE] = {.name = "probe-stride",
                             .help = "steps between probe gradients, 0: none",
                             .max = PROBE_STRIDE_MAX,
                             .value = 4},
    [OPTION_TARGET] = {.name = "target", .help = "train accuracy in percent to reach", .max = 100, .value = 95},
};

static const struct example example = {
    .name = "staleness",
    .summary = "Trains the network of digits with gradients that are late by 0 to --staleness steps, at random.",
    .steps = 1500,
    .optimizer = OPTIMIZER_SGD,
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
    struct random_source delay_source;
    size_t versions;       // that are kept: the newest and those a gradient may be late by
    float *history;        // the parameters at step t are in row t % versions
    float *probe_gradient; // over the first PROBE_IMAGES images to train with
    int64_t reached;       // the first evaluated step with the target accuracy; 0: none yet
};

static void session_free(struct session *session) {
    free(session->probe_gradient);
    free(session->history);
    digits_training_deinit(&session->training);
    free(session);
}

// Reads the data and draws the network; NULL after a line on stderr.
static struct session *session_new(const struct arguments *arguments) {
    struct session *session = calloc(1, sizeof(*session));
    if (!session || digits_data_read(&session->data, EXAMPLES_DATA "/digits.csv.gz") < 0)
        goto fail;
    if (digits_training_init(&session->training, &session->data, arguments->seed, arguments->optimizer) < 0)
        goto fail;

    size_t n = session->training.mlp.n_parameters;
    session->versions = options[OPTION_STALENESS].value + 1;
    session->history = calloc(session->versions * n, sizeof(float));
    session->probe_gradient = calloc(n, sizeof(float));
    if (!session->history || !session->probe_gradient)
        goto fail;
    random_init(&session->delay_source, ~arguments->seed);
    return session;

fail:
    fprintf(stderr, "staleness: no data, or no memory\n");
    if (session)
        session_free(session);
    return NULL;
}

// Computes the next batch's gradient at the parameters of `version`; returns the loss there.
static double session_gradient_at(struct session *session, int64_t version) {
    struct mlp *mlp = &session->training.mlp;
    float *newest = mlp->parameters;
    size_t images[DIGITS_BATCH];

    digits_training_next_batch(&session->training, images);
    mlp->parameters = session->history + (size_t)version % session->versions * mlp->n_parameters;
    double loss = digits_training_gradient(&session->training, images, NULL, DIGITS_BATCH);
    mlp->parameters = newest;
    return loss;
}

// The gradient at the newest parameters over the fixed images; `mlp.gradients` stays as it was.
static void session_probe(struct session *session) {
    struct mlp *mlp = &session->training.mlp;
    float *of_batch = mlp->gradients;
    size_t images[PROBE_IMAGES];

    for (size_t i = 0; i < PROBE_IMAGES; i++)
        images[i] = i;
    mlp->gradients = session->probe_gradient;
    digits_training_gradient(&session->training, images, NULL, PROBE_IMAGES);
    mlp->gradients = of_batch;
}

static void session_submit(struct session *session, struct gradientd_run *run, int64_t step, int64_t version,
                           double loss) {
    const struct digits_training *training = &session->training;
    const void *gradients[MLP_TENSORS], *probe_gradients[MLP_TENSORS];
    uint64_t stride = options[OPTION_PROBE_STRIDE].value;
    bool probe = run && stride > 0 && (uint64_t)(step - 1) % stride == 0; // the first step is one with a probe

    if (probe)
        session_probe(session);
    digits_training_slices(training, training->mlp.gradients, gradients);
    digits_training_slices(training, session->probe_gradient, probe_gradients);
    gradientd_submit(run,
                     &(struct gradientd_step){.step = step,
                                              .learning_rates = &training->optimizer.learning_rate,
                                              .scalars = &(struct gradientd_scalar){"train/loss", (float)loss},
                                              .n_scalars = 1,
                                              .has_model_version = true,
                                              .model_version = version,
                                              .probe_gradients = probe ? probe_gradients : NULL},
                     gradients);
}

static void session_evaluate(struct session *session, int64_t step, struct gradientd_run *run) {
    double train = digits_training_accuracy(&session->training, 0, DIGITS_TRAIN);
    double test = digits_training_accuracy(&session->training, DIGITS_TRAIN, DIGITS_COUNT);
    struct gradientd_scalar scalars[] = {{"train/accuracy", (float)train}, {"test/accuracy", (float)test}};

    gradientd_scalars(run, step, 0.0, scalars, 2);
    if (session->reached == 0 && 100.0 * train >= (double)options[OPTION_TARGET].value) {
        session->reached = step;
        gradientd_scalars(run, step, 0.0, &(struct gradientd_scalar){"train/steps_to_target", (float)step}, 1);
    }
}

static void session_train(struct session *session, int64_t steps, struct gradientd_run *run) {
    struct digits_training *training = &session->training;
    size_t n = training->mlp.n_parameters;
    struct progress progress;

    progress_init(&progress, steps);
    for (int64_t step = 1; step <= steps; step++) {
        memcpy(session->history + (size_t)step % session->versions * n, training->mlp.parameters, n * sizeof(float));
        int64_t oldest = step - (int64_t)session->versions + 1;
        size_t delays = oldest > 0 ? session->versions : (size_t)step; // nothing is older than the start
        int64_t version = step - (int64_t)random_below(&session->delay_source, delays);

        double loss = session_gradient_at(session, version);
        session_submit(session, run, step, version, loss);
        digits_training_update(training);
        if (step % EVALUATION_INTERVAL == 0)
            session_evaluate(session, step, run);
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4f", loss);
    }
}

static struct gradientd_run *session_attach(const struct session *session, const struct arguments *arguments) {
    struct gradientd_group groups[MLP_TENSORS];
    digits_training_describe(&session->training, groups);
    return attachment_open(arguments, &(struct attachment){.groups = groups,
                                                           .n_groups = MLP_TENSORS,
                                                           .probe_gradients.stride =
                                                               (uint32_t)options[OPTION_PROBE_STRIDE].value});
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

    if (session->reached > 0)
        printf("train accuracy %" PRIu64 " %% after %" PRId64 " steps\n", options[OPTION_TARGET].value,
               session->reached);
    else
        printf("train accuracy %" PRIu64 " %% not reached\n", options[OPTION_TARGET].value);
    attachment_close(run);
    const struct mlp *mlp = &session->training.mlp;
    int result = weights_write(arguments.weights, mlp->parameters, mlp->n_parameters);
    session_free(session);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
