// The streams beside the gradient, as tests/tools/feed.c reads them: a description line each,
//
//     probe_gradients STRIDE TYPE
//     parameters STRIDE TYPE
//     outputs STRIDE TYPE EXAMPLES OUTPUTS
//
//     start_parameters 1, start_outputs 1: their elements come ahead of all records and other start vectors
//
// and ahead of the step they belong to a record
//
//     u8 'P': u8 bit per stream, u8 has_model_version, i64 model_version, the elements of each stream there is
#pragma once

#include "gradientd/client.h"

enum { FEED_SIDES = 3 };

struct feed_sides {
    void *elements[FEED_SIDES]; // of a whole snapshot
    void *starts[FEED_SIDES];
    const void **start_slices;
    bool has_start[FEED_SIDES];
    size_t bytes[FEED_SIDES];
    const void **slices[FEED_SIDES]; // into them, one per group
    bool is_there[FEED_SIDES];       // for the next step
    bool has_model_version;
    int64_t model_version;
};

// Takes a line of the description. Returns false where `key` is none of these; a wrong value ends the process.
bool feed_sides_parse(struct feed_sides *sides, const char *key, const char *value, struct gradientd_options *options);

// Allocates what the options ask for, once their groups are known, and reads the starts from stdin.
void feed_sides_init(struct feed_sides *sides, struct gradientd_options *options);

// Reads a record, behind its 'P', from stdin.
void feed_sides_read(struct feed_sides *sides);

// Gives the step what was read for it.
void feed_sides_take(struct feed_sides *sides, struct gradientd_step *step);

void feed_sides_deinit(struct feed_sides *sides);
