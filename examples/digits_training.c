#include "digits_training.h"

#include <errno.h>
#include <string.h>

int digits_training_init(struct digits_training *training, const struct digits_data *data, uint64_t seed,
                         struct optimizer_choice optimizer) {
    *training = (struct digits_training){.data = data, .n_used = DIGITS_TRAIN}; // the first batch begins an epoch
    random_init(&training->source, seed);
    for (size_t i = 0; i < DIGITS_TRAIN; i++)
        training->order[i] = i;
    int result = mlp_init(&training->mlp, DIGITS_COUNT, &training->source);
    return result < 0 ? result : optimizer_init(&training->optimizer, optimizer, training->mlp.n_parameters);
}

void digits_training_deinit(struct digits_training *training) {
    optimizer_deinit(&training->optimizer);
    mlp_deinit(&training->mlp);
}

void digits_training_next_batch(struct digits_training *training, size_t ret_images[DIGITS_BATCH]) {
    if (training->n_used + DIGITS_BATCH > DIGITS_TRAIN) {
        random_shuffle(&training->source, training->order, DIGITS_TRAIN);
        training->n_used = 0;
    }
    memcpy(ret_images, training->order + training->n_used, DIGITS_BATCH * sizeof(*ret_images));
    training->n_used += DIGITS_BATCH;
}

double digits_training_gradient(struct digits_training *training, const size_t *images, const uint8_t *labels,
                                size_t n) {
    const struct digits_data *data = training->data;
    uint8_t own_labels[DIGITS_COUNT];

    for (size_t b = 0; b < n; b++) {
        memcpy(mlp_images(&training->mlp) + b * MLP_INPUTS, data->pixels[images[b]], sizeof(data->pixels[0]));
        own_labels[b] = data->labels[images[b]];
    }
    return mlp_loss_and_gradient(&training->mlp, labels ? labels : own_labels, n);
}

void digits_training_update(struct digits_training *training) {
    struct mlp *mlp = &training->mlp;

    optimizer_begin_step(&training->optimizer);
    for (size_t i = 0; i < mlp->n_parameters; i++)
        mlp->parameters[i] =
            (float)optimizer_update(&training->optimizer, i, (double)mlp->parameters[i], (double)mlp->gradients[i]);
}

double digits_training_step(struct digits_training *training) {
    size_t images[DIGITS_BATCH];

    digits_training_next_batch(training, images);
    double loss = digits_training_gradient(training, images, NULL, DIGITS_BATCH);
    digits_training_update(training);
    return loss;
}

static void digits_training_load(struct digits_training *training, size_t begin, size_t end) {
    memcpy(mlp_images(&training->mlp), training->data->pixels[begin],
           (end - begin) * sizeof(training->data->pixels[0]));
}

double digits_training_accuracy(struct digits_training *training, size_t begin, size_t end) {
    digits_training_load(training, begin, end);
    size_t correct = mlp_count_correct(&training->mlp, training->data->labels + begin, end - begin);
    return (double)correct / (double)(end - begin);
}

void digits_training_predict(struct digits_training *training, size_t begin, size_t end, float *ret_probabilities) {
    digits_training_load(training, begin, end);
    mlp_predict(&training->mlp, end - begin, ret_probabilities);
}

void digits_training_describe(const struct digits_training *training, struct gradientd_group groups[MLP_TENSORS]) {
    const struct mlp_tensor *tensors = training->mlp.tensors;
    for (size_t i = 0; i < MLP_TENSORS; i++)
        groups[i] = (struct gradientd_group){.name = tensors[i].name, .numel = tensors[i].n};
}

void digits_training_slices(const struct digits_training *training, const float *values,
                            const void *slices[MLP_TENSORS]) {
    for (size_t i = 0; i < MLP_TENSORS; i++)
        slices[i] = values + training->mlp.tensors[i].offset;
}

int digits_training_submit(const struct digits_training *training, struct gradientd_run *run, int64_t step,
                           double loss) {
    const void *gradients[MLP_TENSORS];
    struct gradientd_scalar scalars[] = {{"train/loss", (float)loss}};

    digits_training_slices(training, training->mlp.gradients, gradients);
    return gradientd_submit(run,
                            &(struct gradientd_step){.step = step,
                                                     .learning_rates = &training->optimizer.learning_rate,
                                                     .batch_size = DIGITS_BATCH,
                                                     .scalars = scalars,
                                                     .n_scalars = 1},
                            gradients);
}
