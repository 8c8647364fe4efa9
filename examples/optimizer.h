// The update rules gradientd knows, as PyTorch computes them, one coordinate at a time and in double precision.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <gradientd/client.h>

enum optimizer_kind {
    OPTIMIZER_SGD = 0,
    OPTIMIZER_ADAM,
    OPTIMIZER_ADAMW,
    OPTIMIZER_RMSPROP,
    OPTIMIZER_AMSGRAD,
    OPTIMIZER_ADAGRAD,
    OPTIMIZER_ADAFOM,
    OPTIMIZER_COUNT,
};

// How the learning rate goes.
enum optimizer_schedule {
    SCHEDULE_CONSTANT = 0,
    SCHEDULE_SQRT, // rate / sqrt(t)
    SCHEDULE_COUNT,
};

// What a command line says about the optimiser.
struct optimizer_choice {
    enum optimizer_kind kind;
    enum optimizer_schedule schedule;
    double learning_rate; // of the first step
};

// What stays the same for a whole run.
struct optimizer_settings {
    const char *name;
    enum gradientd_rule rule;
    bool bias_corrected; // momentum and second moment
    double beta1;        // decay of the momentum; 0: none
    double beta2;        // decay of the second moment
    double eps;          // added to the root
    double weight_decay; // decoupled
};

// Per coordinate. Its members stay 0 where the rule has no use for them.
struct optimizer_state {
    double momentum;
    double second_moment; // adagrad: the sum of g^2; adafom: their mean
    double second_moment_max;
};

struct optimizer {
    enum optimizer_kind kind;
    struct optimizer_settings settings;
    enum optimizer_schedule schedule;
    double first_learning_rate;
    double learning_rate;            // of the step begun last
    int64_t t;                       // steps begun
    double correction1, correction2; // 1 - beta1^t, 1 - beta2^t
    double beta1_power, beta2_power;
    struct optimizer_state *states;
};

// The settings of `kind`; static.
const struct optimizer_settings *optimizer_settings_of(enum optimizer_kind kind);

// Allocates the state of `n` coordinates; optimizer_deinit() frees it. Returns 0 or -ENOMEM.
int optimizer_init(struct optimizer *optimizer, struct optimizer_choice choice, size_t n);
void optimizer_deinit(struct optimizer *optimizer);

// Begins the next step: once before the step's calls of optimizer_update().
void optimizer_begin_step(struct optimizer *optimizer);

// The new value of coordinate `i`, whose value is `x` and whose gradient is `g`; once per coordinate and step.
double optimizer_update(struct optimizer *optimizer, size_t i, double x, double g);
