// The network of mlp.h learns the digits, a batch a step.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <gradientd/client.h>

#include "digits_data.h"
#include "mlp.h"
#include "optimizer.h"
#include "random.h"

struct digits_training {
    const struct digits_data *data; // the caller's
    struct random_source source;
    size_t order[DIGITS_TRAIN]; // of the training images in this epoch
    size_t n_used;              // of them
    struct mlp mlp;
    struct optimizer optimizer;
};

// Draws a network; from the same seed follows the same training. digits_training_deinit() frees what it allocates, also
// where it failed or `training` is all zero. Returns 0 or -ENOMEM.
int digits_training_init(struct digits_training *training, const struct digits_data *data, uint64_t seed,
                         struct optimizer_choice optimizer);
void digits_training_deinit(struct digits_training *training);

// One optimiser step on the next batch; returns the loss before it. The gradient stays in `mlp.gradients`.
double digits_training_step(struct digits_training *training);

// The share of the images begin..end-1 that the network gets right.
double digits_training_accuracy(struct digits_training *training, size_t begin, size_t end);

// The network's tensors as gradientd's groups.
void digits_training_describe(const struct digits_training *training, struct gradientd_group groups[MLP_TENSORS]);

// Hands the last step's gradient and loss over as step `step`. Returns gradientd_submit()'s result.
int digits_training_submit(const struct digits_training *training, struct gradientd_run *run, int64_t step,
                           double loss);
