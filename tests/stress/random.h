// What a seed decides.
#pragma once

#include <stdint.h>

// The next of a sequence of random numbers (splitmix64); any state is a seed.
uint64_t stress_random(uint64_t *state);

// One below `bound`, which is above 0.
uint32_t stress_random_below(uint64_t *state, uint32_t bound);
