// A small seeded generator of random numbers, the same on every machine: splitmix64 (Steele, Lea, Flood, 2014).
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct random_source {
    uint64_t state;
    double spare_normal; // Box-Muller yields two at a time
    bool has_spare;
};

void random_init(struct random_source *source, uint64_t seed);

// 64 random bits.
uint64_t random_bits(struct random_source *source);

// Uniform in (0, 1], so that its logarithm is finite.
double random_uniform(struct random_source *source);

// Normal with mean 0 and variance 1 (Box-Muller).
double random_normal(struct random_source *source);

// Uniform in 0..limit-1; `limit` is at least 1 and at most 2^32.
size_t random_below(struct random_source *source, size_t limit);

// Puts `items` into random order (Fisher-Yates).
void random_shuffle(struct random_source *source, size_t *items, size_t n_items);
