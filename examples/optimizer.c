#include "optimizer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static const struct optimizer_settings optimizer_settings[OPTIMIZER_COUNT] = {
    [OPTIMIZER_SGD] = {.name = "sgd", .rule = GRADIENTD_SGD},
    [OPTIMIZER_ADAM] =
        {.name = "adam", .rule = GRADIENTD_ADAM, .bias_corrected = true, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    [OPTIMIZER_ADAMW] = {.name = "adamw",
                         .rule = GRADIENTD_ADAMW,
                         .bias_corrected = true,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .weight_decay = 0.01},
    [OPTIMIZER_RMSPROP] = {.name = "rmsprop", .rule = GRADIENTD_RMSPROP, .beta2 = 0.99, .eps = 1e-8},
    [OPTIMIZER_AMSGRAD] = {.name = "amsgrad",
                           .rule = GRADIENTD_AMSGRAD,
                           .bias_corrected = true,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .eps = 1e-8},
    [OPTIMIZER_ADAGRAD] = {.name = "adagrad", .rule = GRADIENTD_ADAGRAD, .eps = 1e-10},
    [OPTIMIZER_ADAFOM] = {.name = "adafom", .rule = GRADIENTD_ADAFOM, .beta1 = 0.9, .eps = 1e-8},
};

const struct optimizer_settings *optimizer_settings_of(enum optimizer_kind kind) {
    return &optimizer_settings[kind];
}

int optimizer_init(struct optimizer *optimizer, struct optimizer_choice choice, size_t n) {
    *optimizer = (struct optimizer){
        .kind = choice.kind,
        .settings = optimizer_settings[choice.kind],
        .schedule = choice.schedule,
        .first_learning_rate = choice.learning_rate,
        .learning_rate = choice.learning_rate,
        .beta1_power = 1.0,
        .beta2_power = 1.0,
        .states = calloc(n, sizeof(struct optimizer_state)),
    };
    return optimizer->states ? 0 : -ENOMEM;
}

void optimizer_deinit(struct optimizer *optimizer) {
    free(optimizer->states);
    optimizer->states = NULL;
}

void optimizer_begin_step(struct optimizer *optimizer) {
    optimizer->t++;
    if (optimizer->schedule == SCHEDULE_SQRT)
        optimizer->learning_rate = optimizer->first_learning_rate / sqrt((double)optimizer->t);
    optimizer->beta1_power *= optimizer->settings.beta1;
    optimizer->beta2_power *= optimizer->settings.beta2;
    optimizer->correction1 = 1.0 - optimizer->beta1_power;
    optimizer->correction2 = 1.0 - optimizer->beta2_power;
}

static void optimizer_update_moments(const struct optimizer *optimizer, struct optimizer_state *state, double g) {
    const struct optimizer_settings *settings = &optimizer->settings;
    double square = g * g;

    state->momentum += (1.0 - settings->beta1) * (g - state->momentum);
    switch (optimizer->kind) {
    case OPTIMIZER_ADAGRAD:
        state->second_moment += square;
        break;
    case OPTIMIZER_ADAFOM:
        state->second_moment += (square - state->second_moment) / (double)optimizer->t;
        break;
    default:
        state->second_moment += (1.0 - settings->beta2) * (square - state->second_moment);
        state->second_moment_max = fmax(state->second_moment_max, state->second_moment);
        break;
    }
}

double optimizer_update(struct optimizer *optimizer, size_t i, double x, double g) {
    struct optimizer_state *state = &optimizer->states[i];
    double rate = optimizer->learning_rate, eps = optimizer->settings.eps;

    if (optimizer->kind == OPTIMIZER_SGD)
        return x - rate * g;

    optimizer_update_moments(optimizer, state, g);
    double momentum = state->momentum, root = sqrt(state->second_moment);
    if (optimizer->kind == OPTIMIZER_AMSGRAD)
        root = sqrt(state->second_moment_max); // of the raw second moment, and corrected below
    if (optimizer->settings.bias_corrected) {
        momentum /= optimizer->correction1;
        root /= sqrt(optimizer->correction2);
    }
    x -= rate * optimizer->settings.weight_decay * x;
    return x - rate * momentum / (root + eps);
}
