// The Adam family's way as the daemon goes it and as a textbook does, and the cases in which they must agree.
#pragma once

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "diagnostics/adam.h"
#include "kernels/kernels.h"

enum {
    GROUPS = 2,
    GROUP_ELEMS = 48, // of group 1; group 0 has one element, whose A is e_t itself
};

extern const size_t group_elems[GROUPS];

void expect_close(double actual, long double expected, double tolerance, const char *where, const char *what,
                  uint64_t step);

// The kernel's step as diagnostics/adam.c derives it, applied to vectors.
struct pipeline {
    const struct gd_adam_config *config;
    struct gd_adam_state state;
    struct gd_adam_group groups[GROUPS];
    int half[GROUPS];
    alignas(64) float root[2][GROUPS][GROUP_ELEMS];
    alignas(64) float maximum[2][GROUPS][GROUP_ELEMS];
    struct gd_step_sums group_sums[GROUPS]; // of the last step
    struct gd_step_sums sums;
};

// One applied step as a trainer makes it.
struct applied_step {
    uint64_t optimizer_step;
    bool present[GROUPS];
    float gradient[GROUPS][GROUP_ELEMS];
    struct gd_adam_rates rates;
};

// One applied step; `exact` as for gd_adam_begin_step().
struct gd_values run_step(struct pipeline *p, const struct applied_step *applied, bool exact);

// The textbook formulas, in long double.
struct coordinate {
    bool counted; // has been active
    long double v, maximum, step_size;
};

struct textbook {
    const struct gd_adam_config *config;
    uint64_t last_optimizer_step; // of the run, 0: none
    uint64_t t[GROUPS];           // each group's own
    bool seen[GROUPS];
    struct coordinate coordinates[GROUPS][GROUP_ELEMS];
    long double A, B, C, D;
    // of the last step
    long double relative_square, step_size_min, step_A;
    uint64_t active, elements;
};

void textbook_step(struct textbook *book, const struct applied_step *applied);

enum schedule { CONSTANT, INVERSE_ROOT, SOMETIMES_ZERO };

struct scenario {
    const char *name;
    struct gd_adam_config config;
    double beta2, eps;
    enum schedule schedule;
    bool changing; // beta2 and eps move from step to step
    bool gaps;     // every tenth step comes after three that were not seen
    bool absent;   // group 1 is absent in two steps of five
    bool sparse;   // two of three gradients are 0
};

#define ADAM .rule = GD_RULE_ADAM, .bias_correction = true
#define AMSGRAD(which) .rule = GD_RULE_AMSGRAD, .maximum_of = GD_MAXIMUM_##which

extern const struct scenario scenarios[]; // every rule and variant
extern const size_t n_scenarios;

// Makes step `step` of a scenario out of the one before it.
void make_step(const struct scenario *scenario, uint64_t step, uint64_t *random, struct applied_step *applied);

// Whether a step's values are those of the textbook.
void check_step(const struct scenario *scenario, const struct pipeline *p, const struct textbook *book,
                const struct gd_values *values, uint64_t step);
