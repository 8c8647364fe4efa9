// A small trainer: five parameters in two groups, sgd at rate 0.1, and a clock that the test knows.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gradientd/client.h"

enum {
    TRAINER_FIRST_NUMEL = 3, // of group layer/weight
    TRAINER_NUMEL = 5,       // with group layer/bias
    TRAINER_MAX_LAG = 2,
};

#define TRAINER_WALL_TIME 1700000000.0 // of the file's first records; step n follows n seconds later

// What the run said through options.warn.
struct trainer_warnings {
    unsigned count;
    char text[1024];
};

// Options that wait long rather than skip: what a file holds is known. `warnings` may be NULL.
struct gradientd_options trainer_options(const char *socket, const char *logdir, const char *run,
                                         struct trainer_warnings *warnings);

// Opens a run, which must succeed.
struct gradientd_run *trainer_open(const struct gradientd_options *options);

// Closes it, which must succeed.
void trainer_close(struct gradientd_run *run);

// Step `step` as struct gradientd_step, with the rate and the clock above.
struct gradientd_step trainer_step(int64_t step);

// A gradient that differs from step to step and is never zero.
void trainer_gradient(int64_t step, float gradient[TRAINER_NUMEL]);

// Submits `gradient`, TRAINER_NUMEL elements. Returns gradientd_submit()'s result.
int trainer_submit(struct gradientd_run *run, const struct gradientd_step *step, const float *gradient);

// Submits steps first..last with trainer_gradient(); every one must be taken.
void trainer_submit_steps(struct gradientd_run *run, int64_t first, int64_t last);

// Runs a short training in a child that has the standard descriptors closed, which the client must leave so: what a
// trainer prints would go where they point.
void trainer_expect_standard_descriptors_left(const struct gradientd_options *options);
