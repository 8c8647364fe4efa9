// A digits step whose batch is taken in parts, as a trainer does whose memory holds no whole batch. What the parts'
// gradients differ by tells how noisy they are (arXiv 1812.06162).
#pragma once

#include <gradientd/client.h>

#include "digits_training.h"

enum { MICROBATCHES = 4, MICROBATCH = DIGITS_BATCH / MICROBATCHES };

struct digits_microbatches {
    float *sum; // of the parts' gradients
    struct gradientd_squared_norm squared_norms[MICROBATCHES];
};

// Allocates for that network; digits_microbatches_deinit() frees it. Returns 0 or -ENOMEM.
int digits_microbatches_init(struct digits_microbatches *parts, const struct digits_training *training);
void digits_microbatches_deinit(struct digits_microbatches *parts);

// Puts the loss's gradient over the batch into `training->mlp.gradients` and the parts' squared norms into `parts`;
// returns the loss. With `label_source` the labels are drawn from what the network predicts, which makes the mean
// squared norm of one image's gradient the trace of the Fisher information; NULL: they are the images' own.
double digits_microbatches_gradient(struct digits_microbatches *parts, struct digits_training *training,
                                    const size_t images[DIGITS_BATCH], struct random_source *label_source);
