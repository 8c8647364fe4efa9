// Stochastic gradient descent on a quadratic in two dimensions, from far away: the gradients agree at first (cosine
// near 1) and only noise is left at the minimum, where the cosine is slightly negative. So gradient coherence tells how
// far the training still is from a minimum (arXiv 1810.03264). With many copies of the problem side by side, a single
// step shows what is a mean over many steps with one.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "optimizer.h"
#include "progress.h"
#include "random.h"
#include "weights.h"

enum { DIMENSIONS = 2, COPIES_MAX = 100000 };

static const double curvature[DIMENSIONS] = {1.0, 0.1}; // the diagonal of the Hessian
static const double start[DIMENSIONS] = {100.0, 100.0};

enum { OPTION_COPIES };

static struct example_option options[] = {
    [OPTION_COPIES] =
        {.name = "copies", .help = "of the problem, side by side", .min = 1, .max = COPIES_MAX, .value = 1},
};

static const struct example example = {
    .name = "quadratic",
    .summary = "Minimises x1^2 / 2 + x2^2 / 20 from (100, 100), with normal noise of variance 1 in each gradient.",
    .steps = 2000,
    .optimizer = OPTIMIZER_SGD,
    .learning_rates = {[OPTIMIZER_SGD] = 0.1,
                       [OPTIMIZER_ADAM] = 0.3,
                       [OPTIMIZER_ADAMW] = 0.3,
                       [OPTIMIZER_RMSPROP] = 0.3,
                       [OPTIMIZER_AMSGRAD] = 1.0,
                       [OPTIMIZER_ADAGRAD] = 10.0,
                       [OPTIMIZER_ADAFOM] = 1.0},
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
};

struct descent {
    size_t n; // coordinates, all copies' in turn
    double *x;
    float *gradient; // of the last step, as gradientd takes it
    struct random_source source;
    struct optimizer optimizer;
};

static void descent_deinit(struct descent *descent) {
    optimizer_deinit(&descent->optimizer);
    free(descent->gradient);
    free(descent->x);
}

// Goes to the start; descent_deinit() frees what it allocates, also where it failed. Returns 0 or -ENOMEM.
static int descent_init(struct descent *descent, const struct arguments *arguments, size_t copies) {
    size_t n = DIMENSIONS * copies;
    *descent = (struct descent){.n = n, .x = calloc(n, sizeof(double)), .gradient = calloc(n, sizeof(float))};
    if (!descent->x || !descent->gradient)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        descent->x[i] = start[i % DIMENSIONS];
    random_init(&descent->source, arguments->seed);
    return optimizer_init(&descent->optimizer, arguments->optimizer, n);
}

// The mean over the copies.
static double descent_loss(const struct descent *descent) {
    double loss = 0.0;
    for (size_t i = 0; i < descent->n; i++)
        loss += 0.5 * curvature[i % DIMENSIONS] * descent->x[i] * descent->x[i];
    return DIMENSIONS * loss / (double)descent->n;
}

// Moves x by one step; returns the loss before it.
static double descent_step(struct descent *descent) {
    double loss = descent_loss(descent);

    optimizer_begin_step(&descent->optimizer);
    for (size_t i = 0; i < descent->n; i++) {
        double gradient = curvature[i % DIMENSIONS] * descent->x[i] + random_normal(&descent->source);
        descent->gradient[i] = (float)gradient;
        descent->x[i] = optimizer_update(&descent->optimizer, i, descent->x[i], gradient);
    }
    return loss;
}

// Writes the first copy's x.
static int descent_write(const struct descent *descent, const char *path) {
    const float x[DIMENSIONS] = {(float)descent->x[0], (float)descent->x[1]};
    return weights_write(path, x, DIMENSIONS);
}

static void descent_run(struct descent *descent, int64_t steps, struct gradientd_run *run) {
    const void *gradients[] = {descent->gradient};
    struct progress progress;

    progress_init(&progress, steps);
    for (int64_t step = 1; step <= steps; step++) {
        double loss = descent_step(descent);

        struct gradientd_scalar scalars[] = {{"loss", (float)loss}};
        gradientd_submit(run,
                         &(struct gradientd_step){.step = step,
                                                  .learning_rates = &descent->optimizer.learning_rate,
                                                  .scalars = scalars,
                                                  .n_scalars = 1},
                         gradients);
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4g", loss);
    }
}

int main(int argc, char **argv) {
    struct arguments arguments;
    enum arguments_outcome outcome = arguments_parse(&arguments, &example, argc, argv);
    if (outcome != ARGUMENTS_TRAIN)
        return outcome == ARGUMENTS_HELP ? EXIT_SUCCESS : 2;

    struct descent descent;
    if (descent_init(&descent, &arguments, options[OPTION_COPIES].value) < 0) {
        fprintf(stderr, "quadratic: out of memory\n");
        descent_deinit(&descent);
        return EXIT_FAILURE;
    }

    struct gradientd_group groups[] = {{.name = "x", .numel = descent.n}};
    struct gradientd_hparam hparams[] = {gradientd_hparam_text("model", "x1^2 / 2 + x2^2 / 20"),
                                         gradientd_hparam_number("noise_variance", 1.0)};
    struct gradientd_run *run =
        attachment_open(&arguments,
                        &(struct attachment){.groups = groups, .n_groups = 1, .hparams = hparams, .n_hparams = 2});
    descent_run(&descent, arguments.steps, run);

    printf("loss %.4g at x = (%.17g, %.17g)\n", descent_loss(&descent), descent.x[0], descent.x[1]);
    attachment_close(run);
    int result = descent_write(&descent, arguments.weights);
    descent_deinit(&descent);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
