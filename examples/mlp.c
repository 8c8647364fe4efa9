#include "mlp.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t widths[MLP_LAYERS + 1] = {MLP_INPUTS, 64, 32, MLP_CLASSES};

static void mlp_lay_out_tensors(struct mlp *mlp) {
    static const char *const names[MLP_TENSORS] = {"layer1/weight", "layer1/bias",   "layer2/weight",
                                                   "layer2/bias",   "layer3/weight", "layer3/bias"};

    for (size_t i = 0; i < MLP_TENSORS; i++) {
        size_t layer = i / 2;
        size_t n = i % 2 == 0 ? widths[layer] * widths[layer + 1] : widths[layer + 1];
        mlp->tensors[i] = (struct mlp_tensor){.name = names[i], .offset = mlp->n_parameters, .n = n};
        mlp->n_parameters += n;
    }
}

int mlp_init(struct mlp *mlp, size_t batch_max, struct random_source *source) {
    *mlp = (struct mlp){.batch_max = batch_max};
    mlp_lay_out_tensors(mlp);

    mlp->parameters = calloc(mlp->n_parameters, sizeof(float));
    mlp->gradients = calloc(mlp->n_parameters, sizeof(float));
    if (!mlp->parameters || !mlp->gradients)
        goto no_memory;
    for (size_t l = 0; l <= MLP_LAYERS; l++) {
        mlp->activations[l] = calloc(batch_max * widths[l], sizeof(float));
        mlp->errors[l] = calloc(batch_max * widths[l], sizeof(float));
        if (!mlp->activations[l] || !mlp->errors[l])
            goto no_memory;
    }

    for (size_t l = 0; l < MLP_LAYERS; l++) {
        const struct mlp_tensor *weight = &mlp->tensors[2 * l];
        double deviation = sqrt(2.0 / (double)widths[l]);
        for (size_t i = 0; i < weight->n; i++)
            mlp->parameters[weight->offset + i] = (float)(deviation * random_normal(source));
    }
    return 0;

no_memory:
    mlp_deinit(mlp);
    return -ENOMEM;
}

void mlp_deinit(struct mlp *mlp) {
    for (size_t l = 0; l <= MLP_LAYERS; l++) {
        free(mlp->activations[l]);
        free(mlp->errors[l]);
    }
    free(mlp->parameters);
    free(mlp->gradients);
    *mlp = (struct mlp){0};
}

float *mlp_images(struct mlp *mlp) {
    return mlp->activations[0];
}

static const float *mlp_weight(const struct mlp *mlp, size_t layer) {
    return mlp->parameters + mlp->tensors[2 * layer].offset;
}

static const float *mlp_bias(const struct mlp *mlp, size_t layer) {
    return mlp->parameters + mlp->tensors[2 * layer + 1].offset;
}

static void mlp_forward_layer(struct mlp *mlp, size_t layer, size_t n) {
    size_t inputs = widths[layer], outputs = widths[layer + 1];
    const float *weight = mlp_weight(mlp, layer);

    for (size_t b = 0; b < n; b++) {
        const float *x = mlp->activations[layer] + b * inputs;
        float *y = mlp->activations[layer + 1] + b * outputs;

        memcpy(y, mlp_bias(mlp, layer), outputs * sizeof(float));
        for (size_t i = 0; i < inputs; i++)
            for (size_t o = 0; o < outputs; o++)
                y[o] += x[i] * weight[i * outputs + o];

        if (layer + 1 < MLP_LAYERS)
            for (size_t o = 0; o < outputs; o++)
                y[o] = y[o] > 0.0f ? y[o] : 0.0f;
    }
}

static void mlp_forward(struct mlp *mlp, size_t n) {
    for (size_t l = 0; l < MLP_LAYERS; l++)
        mlp_forward_layer(mlp, l, n);
}

// The softmax of one image's scores; returns the logarithm of what it was divided by.
static float mlp_softmax(const float scores[MLP_CLASSES], float probabilities[MLP_CLASSES]) {
    // Subtracting the highest score keeps every exponential at or below 1.
    float highest = scores[0], sum = 0.0f;
    for (size_t c = 1; c < MLP_CLASSES; c++)
        highest = fmaxf(highest, scores[c]);
    for (size_t c = 0; c < MLP_CLASSES; c++) {
        probabilities[c] = expf(scores[c] - highest);
        sum += probabilities[c];
    }
    for (size_t c = 0; c < MLP_CLASSES; c++)
        probabilities[c] /= sum;
    return logf(sum) + highest;
}

// The mean cross-entropy of the scores; its derivative by them goes into the last layer's errors.
static double mlp_softmax_loss(struct mlp *mlp, const uint8_t *labels, size_t n) {
    double loss = 0.0;

    for (size_t b = 0; b < n; b++) {
        const float *scores = mlp->activations[MLP_LAYERS] + b * MLP_CLASSES;
        float *error = mlp->errors[MLP_LAYERS] + b * MLP_CLASSES;

        loss += (double)(mlp_softmax(scores, error) - scores[labels[b]]);
        for (size_t c = 0; c < MLP_CLASSES; c++)
            error[c] = (error[c] - (c == labels[b] ? 1.0f : 0.0f)) / (float)n;
    }
    return loss / (double)n;
}

static void mlp_backward_layer(struct mlp *mlp, size_t layer, size_t n) {
    size_t inputs = widths[layer], outputs = widths[layer + 1];
    const float *weight = mlp_weight(mlp, layer);
    float *weight_gradient = mlp->gradients + mlp->tensors[2 * layer].offset;
    float *bias_gradient = mlp->gradients + mlp->tensors[2 * layer + 1].offset;

    for (size_t b = 0; b < n; b++) {
        const float *x = mlp->activations[layer] + b * inputs;
        const float *error = mlp->errors[layer + 1] + b * outputs;
        float *input_error = mlp->errors[layer] + b * inputs;

        for (size_t o = 0; o < outputs; o++)
            bias_gradient[o] += error[o];
        for (size_t i = 0; i < inputs; i++) {
            float sum = 0.0f;
            for (size_t o = 0; o < outputs; o++) {
                weight_gradient[i * outputs + o] += x[i] * error[o];
                sum += weight[i * outputs + o] * error[o];
            }
            input_error[i] = x[i] > 0.0f ? sum : 0.0f;
        }
    }
}

double mlp_loss_and_gradient(struct mlp *mlp, const uint8_t *labels, size_t n) {
    mlp_forward(mlp, n);
    double loss = mlp_softmax_loss(mlp, labels, n);

    memset(mlp->gradients, 0, mlp->n_parameters * sizeof(float));
    for (size_t l = MLP_LAYERS; l-- > 0;)
        mlp_backward_layer(mlp, l, n);
    return loss;
}

void mlp_predict(struct mlp *mlp, size_t n, float *ret_probabilities) {
    mlp_forward(mlp, n);
    for (size_t b = 0; b < n; b++)
        mlp_softmax(mlp->activations[MLP_LAYERS] + b * MLP_CLASSES, ret_probabilities + b * MLP_CLASSES);
}

size_t mlp_count_correct(struct mlp *mlp, const uint8_t *labels, size_t n) {
    size_t correct = 0;

    mlp_forward(mlp, n);
    for (size_t b = 0; b < n; b++) {
        const float *scores = mlp->activations[MLP_LAYERS] + b * MLP_CLASSES;
        size_t best = 0;
        for (size_t c = 1; c < MLP_CLASSES; c++)
            best = scores[c] > scores[best] ? c : best;
        correct += best == labels[b];
    }
    return correct;
}
