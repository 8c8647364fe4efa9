#include "pools.h"

#include <string.h>

#include "element_values.h"

enum {
    PLACES = 8192, // of a whole chunk
    POOL_ELEMS = GD_CHUNK_ELEMS + PLACES,
    DRAWN_ELEMS = 16384, // the rest is made of pieces of these: drawing takes some 200 ns an element
    PIECE_ELEMS_MAX = 4096,
    TYPES = 3,
};

static struct {
    uint32_t elements[TYPES][DISTRIBUTIONS][POOL_ELEMS]; // of 16 bits: the first half of it
    float roots[POOL_ELEMS], maxima[POOL_ELEMS];
} pools;

static void fill_up(void *elements, size_t element_bytes, uint64_t *state) {
    uint8_t *bytes = elements;

    for (size_t filled = DRAWN_ELEMS; filled < POOL_ELEMS;) {
        size_t left = POOL_ELEMS - filled;
        size_t piece = 1 + random_below(state, PIECE_ELEMS_MAX);
        size_t from = random_below(state, DRAWN_ELEMS - PIECE_ELEMS_MAX);
        piece = piece < left ? piece : left;
        memcpy(bytes + filled * element_bytes, bytes + from * element_bytes, piece * element_bytes);
        filled += piece;
    }
}

static uint32_t *pool(enum gd_element_type type, enum distribution distribution) {
    return pools.elements[type - GD_F32][distribution];
}

void pools_init(uint64_t seed) {
    uint64_t state = seed;

    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
        for (enum distribution distribution = 0; distribution < DISTRIBUTIONS; distribution++) {
            uint32_t *elements = pool(type, distribution);
            for (size_t i = 0; i < DRAWN_ELEMS; i++)
                element_store(type, elements, i, element_bits(type, draw_value(distribution, type, &state)));
            fill_up(elements, gd_element_bytes(type), &state);
        }
    }
    for (size_t i = 0; i < POOL_ELEMS; i++) {
        pools.roots[i] = draw_root(&state);
        pools.maxima[i] = draw_maximum(pools.roots[i], 1.0f, &state); // some are below a root scaled by more than 1
    }
}

const void *pool_elements(enum gd_element_type type, enum distribution distribution, size_t elems, uint64_t *state) {
    size_t place = random_below(state, (uint32_t)(POOL_ELEMS - elems + 1));

    return (const uint8_t *)pool(type, distribution) + place * gd_element_bytes(type);
}

void pool_state(size_t elems, uint64_t *state, const float **ret_roots, const float **ret_maxima) {
    size_t place = random_below(state, (uint32_t)(POOL_ELEMS - elems + 1));

    *ret_roots = pools.roots + place;
    *ret_maxima = pools.maxima + place;
}
