// The network of mlp.h learns the digits, a batch a step.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <gradientd/client.h>

#include "digits_data.h"
#include "mlp.h"
#include "optimizer.h"
#include "random.h"

enum {
    DIGITS_BATCH = 32,
    DIGITS_STEPS_PER_EPOCH = DIGITS_TRAIN / DIGITS_BATCH, // what is left over waits for another epoch's order
};

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

// One optimiser step on the next batch; returns the loss before it. The gradient stays in `mlp.gradients`. It is the
// three that follow, one after the other.
double digits_training_step(struct digits_training *training);

// The images of the next batch, as indices into the data.
void digits_training_next_batch(struct digits_training *training, size_t ret_images[DIGITS_BATCH]);

// Puts the loss's gradient over `n` images, at most DIGITS_COUNT, into `mlp.gradients`; returns the loss. `labels` are
// the network's aims, NULL: the images' own.
double digits_training_gradient(struct digits_training *training, const size_t *images, const uint8_t *labels,
                                size_t n);

// Moves the parameters by the gradient in `mlp.gradients`.
void digits_training_update(struct digits_training *training);

// The share of the images begin..end-1 that the network gets right.
double digits_training_accuracy(struct digits_training *training, size_t begin, size_t end);

// The probabilities that the network gives to the classes of the images begin..end-1, MLP_CLASSES a row.
void digits_training_predict(struct digits_training *training, size_t begin, size_t end, float *ret_probabilities);

// The network's tensors as gradientd's groups.
void digits_training_describe(const struct digits_training *training, struct gradientd_group groups[MLP_TENSORS]);

// Where each tensor begins in `values`, which are laid out as the parameters.
void digits_training_slices(const struct digits_training *training, const float *values,
                            const void *slices[MLP_TENSORS]);

// Hands the last step's gradient and loss over as step `step`. Returns gradientd_submit()'s result.
int digits_training_submit(const struct digits_training *training, struct gradientd_run *run, int64_t step,
                           double loss);
