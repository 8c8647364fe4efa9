// A multilayer perceptron of 64-64-32-10 units, ReLU between the layers, softmax cross-entropy at the end.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "random.h"

enum {
    MLP_LAYERS = 3,
    MLP_INPUTS = 64,
    MLP_CLASSES = 10,
    MLP_TENSORS = 2 * MLP_LAYERS, // a weight and a bias each
};

// One tensor: a slice of the network's parameters and of their gradient.
struct mlp_tensor {
    const char *name; // static
    size_t offset, n;
};

struct mlp {
    struct mlp_tensor tensors[MLP_TENSORS]; // weight, bias of each layer in turn; a weight is inputs x outputs
    size_t n_parameters;
    float *parameters;
    float *gradients;
    size_t batch_max;
    float *activations[MLP_LAYERS + 1]; // batch_max x width each; [0] holds the images
    float *errors[MLP_LAYERS + 1];      // the loss's derivative by them, before the ReLU
};

// Draws the weights (He et al., arXiv 1502.01852: variance 2 / inputs), biases 0, and allocates room for batches of up
// to `batch_max` images; mlp_deinit() frees it. Returns 0 or -ENOMEM.
int mlp_init(struct mlp *mlp, size_t batch_max, struct random_source *source);
void mlp_deinit(struct mlp *mlp);

// Where the next batch's images go: MLP_INPUTS floats each.
float *mlp_images(struct mlp *mlp);

// The mean loss over the `n` images at mlp_images(); leaves its gradient in `gradients`.
double mlp_loss_and_gradient(struct mlp *mlp, const uint8_t *labels, size_t n);

// The probabilities of the classes for each of the `n` images at mlp_images(), MLP_CLASSES a row.
void mlp_predict(struct mlp *mlp, size_t n, float *ret_probabilities);

// How many of the `n` images at mlp_images() get the highest score for their label.
size_t mlp_count_correct(struct mlp *mlp, const uint8_t *labels, size_t n);
