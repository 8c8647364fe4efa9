#include "digits_microbatches.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int digits_microbatches_init(struct digits_microbatches *parts, const struct digits_training *training) {
    *parts = (struct digits_microbatches){.sum = calloc(training->mlp.n_parameters, sizeof(float))};
    return parts->sum ? 0 : -ENOMEM;
}

void digits_microbatches_deinit(struct digits_microbatches *parts) {
    free(parts->sum);
    parts->sum = NULL;
}

static uint8_t draw_class(const float probabilities[MLP_CLASSES], struct random_source *source) {
    double left = random_uniform(source);
    for (uint8_t c = 0; c + 1 < MLP_CLASSES; c++) {
        left -= (double)probabilities[c];
        if (left <= 0.0)
            return c;
    }
    return MLP_CLASSES - 1;
}

static void draw_labels(struct digits_training *training, const size_t images[MICROBATCH], struct random_source *source,
                        uint8_t ret_labels[MICROBATCH]) {
    for (size_t i = 0; i < MICROBATCH; i++) {
        float probabilities[MLP_CLASSES];
        digits_training_predict(training, images[i], images[i] + 1, probabilities);
        ret_labels[i] = draw_class(probabilities, source);
    }
}

// Adds the gradient to the sum; returns its squared norm.
static double add_gradient(float *sum, const struct mlp *mlp) {
    double squared_norm = 0.0;
    for (size_t i = 0; i < mlp->n_parameters; i++) {
        sum[i] += mlp->gradients[i];
        squared_norm += (double)mlp->gradients[i] * (double)mlp->gradients[i];
    }
    return squared_norm;
}

double digits_microbatches_gradient(struct digits_microbatches *parts, struct digits_training *training,
                                    const size_t images[DIGITS_BATCH], struct random_source *label_source) {
    struct mlp *mlp = &training->mlp;
    double loss = 0.0;

    memset(parts->sum, 0, mlp->n_parameters * sizeof(float));
    for (size_t part = 0; part < MICROBATCHES; part++) {
        const size_t *own = images + part * MICROBATCH;
        uint8_t labels[MICROBATCH];
        if (label_source)
            draw_labels(training, own, label_source, labels);
        loss += digits_training_gradient(training, own, label_source ? labels : NULL, MICROBATCH) / MICROBATCHES;
        parts->squared_norms[part] =
            (struct gradientd_squared_norm){.batch_size = MICROBATCH, .value = add_gradient(parts->sum, mlp)};
    }
    for (size_t i = 0; i < mlp->n_parameters; i++)
        mlp->gradients[i] = parts->sum[i] / (float)MICROBATCHES;
    return loss;
}
