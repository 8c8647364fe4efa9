// What was learned, in a file: to compare two trainings to the last bit.
#pragma once

#include <stddef.h>

// Writes `n` floats to a new file at `path`, little-endian; does nothing where `path` is NULL. Returns 0, or a negative
// errno after a line on stderr.
int weights_write(const char *path, const float *weights, size_t n);
