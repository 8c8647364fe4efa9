#include "sweeps.h"

enum {
    SHORT_ELEMS_MAX = 300,
    BLOCKS_MAX = 3,   // of a chunk whose length is about a whole number of blocks ...
    ABOUT_ELEMS = 17, // ... give or take a row and one
    LONG_CALLS = 300,
    FEW_LAGS = 5,
};

// ---- What every sweep does ------------------------------------------------------------------------------------------

bool sweeper_takes_next(struct sweeper *sweeper, uint64_t *ret_state) {
    uint64_t number = sweeper->next++;

    // Hashed, else the next seed's calls would be this one's, moved by one.
    *ret_state = sweeper->seed ^ random_bits(&(uint64_t){number});
    return number >= sweeper->first && (number - sweeper->first) % sweeper->stride == 0;
}

void sweeper_visit(struct sweeper *sweeper, const char *sweep, struct call_shape shape, uint64_t *state) {
    struct kernel_call call;

    kernel_call_init(&call, sweep, sweeper->next - 1, shape, state);
    sweeper->visit(sweeper->context, &call);
}

struct call_shape random_shape(enum gd_element_type type, size_t elems, uint64_t *state) {
    struct call_shape shape = {.type = type, .elems = elems};

    // One after the other: the order of an initializer's expressions is the compiler's.
    shape.lags = random_below(state, GD_LAG_MAX + 1);
    shape.missing_quarters = random_below(state, 4);
    shape.form = &rule_forms[random_below(state, (uint32_t)n_rule_forms)];
    shape.distribution = (enum distribution)random_below(state, DISTRIBUTIONS);
    shape.offset = random_below(state, OFFSETS);
    shape.offset_step = random_below(state, OFFSETS);
    shape.past_caches = shape.form->state && random_below(state, 2);
    return shape;
}

// ---- Sweeps ---------------------------------------------------------------------------------------------------------

static void sweep_lengths(struct sweeper *sweeper) {
    uint64_t state;

    for (size_t elems = 0; elems <= SHORT_ELEMS_MAX; elems++) {
        for (uint32_t offset = 0; offset < OFFSETS; offset++) {
            for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
                if (!sweeper_takes_next(sweeper, &state))
                    continue;
                struct call_shape shape = random_shape(type, elems, &state);
                shape.offset = offset;
                sweeper_visit(sweeper, "every length", shape, &state);
            }
        }
    }
}

static size_t about_whole_blocks(uint64_t *state) {
    size_t blocks = 1 + random_below(state, BLOCKS_MAX);

    return blocks * GD_FLUSH_ELEMS - ABOUT_ELEMS + random_below(state, 2 * ABOUT_ELEMS + 1);
}

static void sweep_rules(struct sweeper *sweeper, uint32_t lags) {
    uint64_t state;

    for (size_t form = 0; form < n_rule_forms; form++) {
        for (enum distribution distribution = 0; distribution < DISTRIBUTIONS; distribution++) {
            for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
                if (!sweeper_takes_next(sweeper, &state))
                    continue;
                struct call_shape shape = random_shape(type, about_whole_blocks(&state), &state);
                shape.lags = lags;
                shape.form = &rule_forms[form];
                shape.distribution = distribution;
                sweeper_visit(sweeper, "every number of lags", shape, &state);
            }
        }
    }
}

static void sweep_long_chunks(struct sweeper *sweeper) {
    uint64_t state;

    for (int i = 0; i < LONG_CALLS; i++) {
        if (!sweeper_takes_next(sweeper, &state))
            continue;
        size_t elems = i % 8 == 0 ? GD_CHUNK_ELEMS : random_below(&state, GD_CHUNK_ELEMS + 1);
        struct call_shape shape = random_shape(GD_F32 + random_below(&state, 3), elems, &state);
        if (i % 3 > 0) // as most runs have it
            shape.lags = random_below(&state, FEW_LAGS + 1);
        sweeper_visit(sweeper, "long chunks", shape, &state);
    }
}

void sweep_all(struct sweeper *sweeper) {
    sweeper->next = 0;
    sweep_lengths(sweeper);
    for (uint32_t lags = 0; lags <= GD_LAG_MAX; lags++)
        sweep_rules(sweeper, lags);
    sweep_specials(sweeper);
    sweep_long_chunks(sweeper);
}
