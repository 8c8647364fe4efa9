#include "random.h"

#include <math.h>

void random_init(struct random_source *source, uint64_t seed) {
    *source = (struct random_source){.state = seed};
}

uint64_t random_bits(struct random_source *source) {
    source->state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t bits = source->state;
    bits = (bits ^ bits >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    bits = (bits ^ bits >> 27) * UINT64_C(0x94d049bb133111eb);
    return bits ^ bits >> 31;
}

double random_uniform(struct random_source *source) {
    return ((double)(random_bits(source) >> 11) + 1.0) * 0x1p-53;
}

double random_normal(struct random_source *source) {
    if (source->has_spare) {
        source->has_spare = false;
        return source->spare_normal;
    }

    const double two_pi = 6.283185307179586;
    double radius = sqrt(-2.0 * log(random_uniform(source)));
    double angle = two_pi * random_uniform(source);
    source->spare_normal = radius * sin(angle);
    source->has_spare = true;
    return radius * cos(angle);
}

size_t random_below(struct random_source *source, size_t limit) {
    // The upper half of a 32 x 32 bit product: biased by less than limit / 2^32, too little to matter here.
    return (size_t)((random_bits(source) >> 32) * (uint64_t)limit >> 32);
}

void random_shuffle(struct random_source *source, size_t *items, size_t n_items) {
    for (size_t i = n_items; i > 1; i--) {
        size_t j = random_below(source, i);
        size_t item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}
