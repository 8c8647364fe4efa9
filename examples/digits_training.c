#include "digits_training.h"

#include <errno.h>
#include <string.h>

enum {
    BATCH = 32,
    EVALUATION_BATCH = DIGITS_TEST,
};

int digits_training_init(struct digits_training *training, const struct digits_data *data, uint64_t seed,
                         struct optimizer_choice optimizer) {
    *training = (struct digits_training){.data = data, .n_used = DIGITS_TRAIN}; // the first batch begins an epoch
    random_init(&training->source, seed);
    for (size_t i = 0; i < DIGITS_TRAIN; i++)
        training->order[i] = i;
    int result = mlp_init(&training->mlp, EVALUATION_BATCH, &training->source);
    return result < 0 ? result : optimizer_init(&training->optimizer, optimizer, training->mlp.n_parameters);
}

void digits_training_deinit(struct digits_training *training) {
    optimizer_deinit(&training->optimizer);
    mlp_deinit(&training->mlp);
}

double digits_training_step(struct digits_training *training) {
    struct mlp *mlp = &training->mlp;
    const struct digits_data *data = training->data;
    uint8_t labels[BATCH];

    if (training->n_used + BATCH > DIGITS_TRAIN) {
        random_shuffle(&training->source, training->order, DIGITS_TRAIN);
        training->n_used = 0;
    }
    for (size_t b = 0; b < BATCH; b++) {
        size_t image = training->order[training->n_used++];
        memcpy(mlp_images(mlp) + b * MLP_INPUTS, data->pixels[image], sizeof(data->pixels[image]));
        labels[b] = data->labels[image];
    }

    double loss = mlp_loss_and_gradient(mlp, labels, BATCH);
    optimizer_begin_step(&training->optimizer);
    for (size_t i = 0; i < mlp->n_parameters; i++)
        mlp->parameters[i] =
            (float)optimizer_update(&training->optimizer, i, (double)mlp->parameters[i], (double)mlp->gradients[i]);
    return loss;
}

double digits_training_accuracy(struct digits_training *training, size_t begin, size_t end) {
    const struct digits_data *data = training->data;
    size_t correct = 0;

    for (size_t first = begin; first < end; first += EVALUATION_BATCH) {
        size_t n = end - first < EVALUATION_BATCH ? end - first : EVALUATION_BATCH;
        memcpy(mlp_images(&training->mlp), data->pixels[first], n * sizeof(data->pixels[first]));
        correct += mlp_count_correct(&training->mlp, data->labels + first, n);
    }
    return (double)correct / (double)(end - begin);
}

void digits_training_describe(const struct digits_training *training, struct gradientd_group groups[MLP_TENSORS]) {
    const struct mlp_tensor *tensors = training->mlp.tensors;
    for (size_t i = 0; i < MLP_TENSORS; i++)
        groups[i] = (struct gradientd_group){.name = tensors[i].name, .numel = tensors[i].n};
}

int digits_training_submit(const struct digits_training *training, struct gradientd_run *run, int64_t step,
                           double loss) {
    const void *gradients[MLP_TENSORS];
    struct gradientd_scalar scalars[] = {{"train/loss", (float)loss}};

    for (size_t i = 0; i < MLP_TENSORS; i++)
        gradients[i] = training->mlp.gradients + training->mlp.tensors[i].offset;
    return gradientd_submit(run,
                            &(struct gradientd_step){.step = step,
                                                     .learning_rates = &training->optimizer.learning_rate,
                                                     .scalars = scalars,
                                                     .n_scalars = 1},
                            gradients);
}
