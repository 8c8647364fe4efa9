// Two problems of one variable on which an optimiser fails for good, and the figures that show it (Chen et al.,
// arXiv 1808.02941). Without noise, momentum, bias correction and eps, as the paper has them: which optimiser fails is
// then a matter of its effective steps alone.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <gradientd/client.h>

#include "arguments.h"
#include "attachment.h"
#include "optimizer.h"
#include "progress.h"
#include "weights.h"

// What is minimised. The gradient may depend on the step; the loss, of all steps together, does not.
struct problem {
    double (*gradient)(int64_t step, double x);
    double (*loss)(double x);
    double start, learning_rate, beta2;
};

static double sign_of(double x) {
    return copysign(1.0, x);
}

// 100 x^2, and linear beyond 10: at the rate 0.01 plain gradient descent leaps from x to -x.
static double steep_gradient(int64_t step, double x) {
    (void)step;
    return fabs(x) <= 10.0 ? 200.0 * x : 2000.0 * sign_of(x);
}

static double steep_loss(double x) {
    return fabs(x) <= 10.0 ? 100.0 * x * x : 2000.0 * fabs(x) - 10000.0;
}

// Eleven functions in turn, of which the first pulls x to 0 and the ten others push it away, together only 10/11 as
// strongly. Adam takes the first one's step small, as it makes its own second moment large.
enum { ROTATING_PERIOD = 11 };

static double rotating_gradient(int64_t step, double x) {
    double slope = fabs(x) <= 1.0 ? x : sign_of(x);
    return (step - 1) % ROTATING_PERIOD == 0 ? 11.0 * slope : -slope;
}

static double rotating_loss(double x) {
    return (fabs(x) <= 1.0 ? 0.5 * x * x : fabs(x) - 0.5) / ROTATING_PERIOD;
}

enum { PROBLEM_ROTATING, PROBLEM_STEEP };

static const struct problem problems[] = {
    [PROBLEM_ROTATING] = {rotating_gradient, rotating_loss, .start = 2.0, .learning_rate = 1.0, .beta2 = 0.1},
    [PROBLEM_STEEP] = {steep_gradient, steep_loss, .start = 10.0, .learning_rate = 0.01, .beta2 = 0.9},
};

static const char *const problem_names[] = {[PROBLEM_ROTATING] = "rotating", [PROBLEM_STEEP] = "steep", NULL};

static struct example_option options[] = {
    {.name = "problem", .help = "what is minimised", .choices = problem_names, .value = PROBLEM_ROTATING},
};

static const struct example example = {
    .name = "adam_ratios",
    .summary = "Minimises a function of one variable on which Adam (rotating) or plain gradient descent (steep) fails.",
    .steps = 110000,
    .optimizer = OPTIMIZER_ADAM,
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
};

static double descend(const struct problem *problem, struct optimizer *optimizer, int64_t steps,
                      struct gradientd_run *run) {
    double x = problem->start;
    struct progress progress;

    progress_init(&progress, steps);
    for (int64_t step = 1; step <= steps; step++) {
        double loss = problem->loss(x), exact = problem->gradient(step, x);
        float gradient = (float)exact;

        optimizer_begin_step(optimizer);
        x = optimizer_update(optimizer, 0, x, exact);
        gradientd_submit(run, &(struct gradientd_step){.step = step, .learning_rates = &optimizer->learning_rate},
                         (const void *[]){&gradient});
        if (step % ROTATING_PERIOD == 1)
            gradientd_scalars(run, step, 0.0, &(struct gradientd_scalar){"train/loss", (float)loss}, 1);
        if (progress_due(&progress, step))
            progress_show(&progress, step, "loss %.4g", loss);
    }
    return x;
}

int main(int argc, char **argv) {
    struct arguments arguments;
    enum arguments_outcome outcome = arguments_parse(&arguments, &example, argc, argv);
    if (outcome != ARGUMENTS_TRAIN)
        return outcome == ARGUMENTS_HELP ? EXIT_SUCCESS : 2;

    const struct problem *problem = &problems[options[0].value];
    if (arguments.optimizer.learning_rate <= 0.0)
        arguments.optimizer.learning_rate = problem->learning_rate;
    struct optimizer optimizer;
    if (optimizer_init(&optimizer, arguments.optimizer, 1) < 0) {
        fprintf(stderr, "adam_ratios: out of memory\n");
        return EXIT_FAILURE;
    }
    optimizer.settings.bias_corrected = false;
    optimizer.settings.beta1 = 0.0;
    optimizer.settings.beta2 = optimizer.settings.beta2 > 0.0 ? problem->beta2 : 0.0;
    optimizer.settings.eps = 0.0;

    struct gradientd_group groups[] = {{.name = "x", .numel = 1}};
    struct gradientd_run *run =
        attachment_open(&arguments,
                        &(struct attachment){.groups = groups, .n_groups = 1, .settings = &optimizer.settings});
    double x = descend(problem, &optimizer, arguments.steps, run);

    printf("loss %.4g at x = %.17g\n", problem->loss(x), x);
    attachment_close(run);
    optimizer_deinit(&optimizer);
    return weights_write(arguments.weights, &(float){(float)x}, 1) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
