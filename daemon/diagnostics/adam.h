// Adam-type ratios: how large the effective steps are and how much they oscillate.
//
// Chen, Liu, Sun, Hong: "On the convergence of a class of Adam-type algorithms for non-convex optimization",
// arXiv 1808.02941, Theorem 3.1. With the effective step  e_t = a_t / (sqrt(vhat_t) + eps)  per coordinate and sums
// over active coordinates (g_t is not 0):  A = sum e_t,  B = sum (e_t g_t)^2,  C = sum |e_t - e_{t-1}|, D = sum (e_t -
// e_{t-1})^2.  Where the proof holds, B/A and C/A go to zero.
//
// Pure: the per-group step follows from (config, group state, rates, t), the values from (state, sums).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "tags.h"

// As on the wire.
enum gd_rule {
    GD_RULE_SGD = 1,
    GD_RULE_ADAM,
    GD_RULE_ADAMW,
    GD_RULE_RMSPROP,
    GD_RULE_AMSGRAD,
    GD_RULE_ADAGRAD,
    GD_RULE_ADAFOM,
    GD_RULE_OTHER, // its effective step is not known: the family never begins
};

enum gd_maximum_of {
    GD_MAXIMUM_RAW_THEN_CORRECTED = 1,
    GD_MAXIMUM_CORRECTED,
    GD_MAXIMUM_UNCORRECTED,
};

struct gd_adam_config {
    enum gd_rule rule;
    enum gd_maximum_of maximum_of; // amsgrad
    double eps_root;
    double initial_accumulator; // adagrad
    double learning_rate_decay; // adagrad
    bool bias_correction;
    bool absent_counts;
};

enum {
    GD_STATE_ARRAYS_MAX = 2,           // a root of v, and amsgrad's of its maximum
    GD_SHADOWS_MAX = GD_RULE_ADAFOM,   // a run follows each known rule once, as a shadow all but its own ...
    GD_RULES_MAX = GD_SHADOWS_MAX + 1, // ... which may be none of them
};

// Whether the rule's effective step is known: every rule's but other's.
bool gd_adam_has_effective_step(const struct gd_adam_config *config);

// Whether a rule corrects the bias of v where nothing is said.
bool gd_adam_corrects_by_default(enum gd_rule rule);

// The rule as a shadow of a run whose own is `own`: with its eps_root, and in the variant that corrects v where the
// run's own rule does (amsgrad then as PyTorch has it).
struct gd_adam_config gd_adam_shadow(const struct gd_adam_config *own, enum gd_rule rule);

// One parameter group's rates at one step.
struct gd_adam_rates {
    double learning_rate;
    double beta2;
    double eps;
};

bool gd_adam_beta2_is_valid(double beta2); // in [0, 1)
bool gd_adam_eps_is_valid(double eps);     // finite and not negative

// State of one group. Its effective step of the last applied step it was present in is
// numerator / (sqrt(scale^2 v + inside) + outside).
struct gd_adam_group {
    uint64_t lag;     // the group's own t is the snapshot's optimizer_step minus this
    uint64_t updates; // applied steps that its state holds: those it was present in, and those of a start vector
    uint64_t missing; // the run's missing steps when it was last present
    double numerator;
    double scale;
    double inside;
    double outside;
};

enum { GD_ADAM_KEPT = 16 }; // from n / 2 to n the grid 2^j (8 + i) has at most 10 points

// A, B and C at one n of the grid.
struct gd_adam_point {
    double A, B, C;
};

struct gd_adam_state {
    uint64_t applied;              // applied steps seen
    uint64_t first_optimizer_step; // of the first one, or of the first after the start vectors; 0: none yet
    uint64_t optimizer_step;       // of the last one, seen or known from the start vectors
    uint64_t missing;              // optimiser steps since the first that were not seen
    uint64_t silent;               // applied steps before the family begins; UINT64_MAX: it never does
    uint64_t counted;              // n: applied steps since it began
    double A, B, C, D;
    struct gd_adam_point kept[GD_ADAM_KEPT];
};

// What one applied step means for the whole run.
struct gd_adam_step {
    uint64_t optimizer_step; // t
    uint64_t missing;        // k: optimiser steps between the last applied one seen and this one
    uint64_t missing_total;  // all k so far
    bool measured;           // the family has begun: Adam terms are summed
};

// What one applied step means for one group.
struct gd_adam_group_step {
    struct gd_second_moment_step kernel; // for the kernels; sgd has no use for most of it
    double numerator;                    // sgd: the learning rate now ...
    double numerator_before;             // ... and before
    bool relative;                       // vhat has filled: g^2 / vhat means something
};

// True when the rule keeps a second moment (every rule but sgd and other), and how many floats an element's state
// takes.
bool gd_adam_has_second_moment(const struct gd_adam_config *config);
uint32_t gd_adam_state_arrays(const struct gd_adam_config *config);

// The state was handed over as optimiser step `optimizer_step` left it: the family begins with the next step.
void gd_adam_start(struct gd_adam_state *state, uint64_t optimizer_step);

// ... and so was that of a group, unless its own t was 0 still. `rates` are those of that step.
void gd_adam_start_group(const struct gd_adam_config *config, struct gd_adam_group *group, uint64_t optimizer_step,
                         const struct gd_adam_rates *rates);

// What brings a root of v, after a group's own step t, to one of that whose maximum the rule keeps.
double gd_adam_maximum_scale(const struct gd_adam_config *config, double beta2, uint64_t t);

// The run's next applied step. `optimizer_step` must be above the last applied one. `exact` says whether every group
// starts at its own t = 1 (else the state of the steps before is unknown and the family waits); `beta2_max` is the
// largest decay of the parameter groups. Both are read at the first applied step alone, and not after gd_adam_start().
struct gd_adam_step gd_adam_begin_step(const struct gd_adam_config *config, struct gd_adam_state *state,
                                       uint64_t optimizer_step, bool exact, double beta2_max);

// The step of a group that is present; moves its state on.
struct gd_adam_group_step gd_adam_step_group(const struct gd_adam_config *config, struct gd_adam_group *group,
                                             const struct gd_adam_step *step, const struct gd_adam_rates *rates);

// An applied step a group is absent from: its t stands still (unless absent_counts).
void gd_adam_skip_group(const struct gd_adam_config *config, struct gd_adam_group *group,
                        const struct gd_adam_step *step);

// Completes a present group's sums: sgd's terms follow from counts and norms; a group whose vhat has not filled leaves
// the mean of g^2 / vhat.
void gd_adam_complete_sums(const struct gd_adam_config *config, const struct gd_adam_group_step *group_step,
                           struct gd_step_sums *sums);

// Adds an increment to a total, unless it overflowed.
void gd_adam_add_finite(double *total, double increment);

// Adds the step's sums over all groups to the totals and sets the family's tags. An increment that overflowed is left
// out of the totals.
void gd_adam_end_step(struct gd_adam_state *state, const struct gd_adam_step *step, const struct gd_step_sums *sums,
                      struct gd_values *values);
