// Many trainers at once, good and bad ones, drawn from a seed.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gradientd/client.h"

enum { STRESS_PATH_BYTES = 128 };

// Where a trainer finds the daemon and puts its event files.
struct stress_place {
    char socket[STRESS_PATH_BYTES];
    char logdir[STRESS_PATH_BYTES];
};

// Prints a line on stderr and returns -1.
__attribute__((format(printf, 1, 2))) int stress_fail(const char *format, ...);

// ---- a run that ends as it should

enum { STRESS_SPECS = 16 };

// What a run submits: a function of the seed and of a number below STRESS_SPECS. Its event file is one as well.
struct stress_spec;

// NULL: no memory.
struct stress_spec *stress_spec_new(uint64_t seed, uint32_t number);
void stress_spec_free(struct stress_spec *spec);

// How a run hands over what it submits; but for the part of it of no effect on its event file.
struct stress_manner {
    const char *name; // of the run
    enum gradientd_transport transport;
    bool in_place;
    int64_t first, last; // a part of what it submits; 0: from the beginning, to the end
    // Called before each step, and before the run is closed with the number after the last one; NULL: nothing is.
    void (*before_step)(void *context, struct gradientd_run *run, int64_t step);
    void *context;
    void (*warn)(void *context, const char *text); // as of struct gradientd_options
};

// How many steps there are to submit, numbered from 1.
int64_t stress_spec_steps(const struct stress_spec *spec);

// The hash of a file. Returns 0 or -1.
int stress_hash_file(const char *path, uint64_t *ret_hash); // without the record of the outcome

// Opens the run, submits everything and closes it; *ret_hash is the hash of its event file, which is removed. Returns 0
// or -1. Any thread.
int stress_run(const struct stress_place *place, const struct stress_spec *spec, const struct stress_manner *manner,
               uint64_t *ret_hash);

// ---- who watches them

// Asks for Status again and again. Returns 0 once *ending, or -1 where the daemon does not answer. One at a time.
int stress_watch(const struct stress_place *place, const _Atomic bool *ending);

// ---- processes that end as they should not

// Submits step after step until it is killed; prints a line once it has begun. Returns only where that fails.
int stress_train_endlessly(const struct stress_place *place, uint64_t seed);

// Breaks the protocol, before the run is attached or after.
int stress_break_protocol(const struct stress_place *place, uint64_t seed);
