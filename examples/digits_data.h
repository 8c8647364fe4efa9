// The UCI handwritten digits (data/README.md), split into images to train on and images to test with.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    DIGITS_PIXELS = 64,
    DIGITS_TRAIN = 1437,
    DIGITS_TEST = 360,
    DIGITS_COUNT = DIGITS_TRAIN + DIGITS_TEST,
};

// The first DIGITS_TRAIN of both arrays are for training, the rest for testing.
struct digits_data {
    float pixels[DIGITS_COUNT][DIGITS_PIXELS]; // 0 to 1
    uint8_t labels[DIGITS_COUNT];              // 0 to 9
};

// Reads the gzip-compressed CSV at `path` and shuffles it, always into the same order. Returns 0, or a negative errno
// after a line on stderr that says what is wrong where.
int digits_data_read(struct digits_data *data, const char *path);
