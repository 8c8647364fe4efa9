// Calls with special values among ordinary elements.
#include <string.h>

#include "element_values.h"
#include "sweeps.h"

enum {
    POSITIONS =
        64, // lanes: more than a vector has, so that each of its lanes is met in each of an unrolled loop's rows
    BLOCKS_BEFORE_MAX = 2,
    ELEMS_BEHIND_MAX = 100,
    SPECIAL_ELEMS_MAX = BLOCKS_BEFORE_MAX * GD_FLUSH_ELEMS + POSITIONS + ELEMS_BEHIND_MAX,
    RANDOM_CALLS = 20000,
};

// ---- The values -----------------------------------------------------------------------------------------------------

struct element_format {
    uint32_t sign, infinity, least_normal;
};

static struct element_format format_of(enum gd_element_type type) {
    switch (type) {
    case GD_BF16:
        return (struct element_format){0x8000, 0x7f80, 0x0080};
    case GD_F16:
        return (struct element_format){0x8000, 0x7c00, 0x0400};
    default:
        return (struct element_format){UINT32_C(0x80000000), UINT32_C(0x7f800000), UINT32_C(0x00800000)};
    }
}

struct value {
    const char *name;
    uint32_t bits;
};

enum { VALUES = 20 };

static void fill_values(enum gd_element_type type, struct value ret_values[static VALUES]) {
    struct element_format f = format_of(type);
    const struct value values[VALUES] = {
        {"NaN", f.infinity | f.least_normal >> 1},
        {"-NaN", f.sign | f.infinity | f.least_normal >> 1},
        {"a signalling NaN", f.infinity | 1},
        {"a NaN of ones", f.sign | f.infinity | (f.least_normal - 1)},
        {"infinity", f.infinity},
        {"-infinity", f.sign | f.infinity},
        {"the least subnormal", 1},
        {"minus the least subnormal", f.sign | 1},
        {"the largest subnormal", f.least_normal - 1},
        {"minus the largest subnormal", f.sign | (f.least_normal - 1)},
        {"the least bf16", element_bits(type, 0x1p-133f)}, // a subnormal in f32, 0 in f16
        {"the least f16", element_bits(type, 0x1p-24f)},
        {"the largest subnormal f16", element_bits(type, 0x1.ff8p-15f)},
        {"0", 0},
        {"-0", f.sign},
        {"the largest", f.infinity - 1},
        {"minus the largest", f.sign | (f.infinity - 1)},
        {"the least normal", f.least_normal},
        {"minus the least normal", f.sign | f.least_normal},
        {"the square root of the largest float", element_bits(type, 0x1.fffffep63f)}, // an infinity's neighbour squared
    };

    memcpy(ret_values, values, sizeof(values));
}

// ---- Calls with them ------------------------------------------------------------------------------------------------

// Copies of what is changed: the pools are everyone's.
static uint32_t changed[SPECIALS_MAX][SPECIAL_ELEMS_MAX];

static const void **stream_of(struct kernel_call *call, int stream) {
    return stream == IN_GRADIENT ? &call->gradient : &call->history[stream];
}

static void put_value(struct kernel_call *call, int stream, size_t index, const struct value *value) {
    enum gd_element_type type = call->shape.type;
    const void **elements = stream_of(call, stream);
    uint32_t *copy = changed[call->n_specials];

    memcpy(copy, *elements, call->shape.elems * gd_element_bytes(type));
    element_store(type, copy, index, value->bits);
    *elements = copy;
    call->specials[call->n_specials++] = (struct special){value->name, stream, index};
}

// A root at an end of what the state may hold; its maximum stays.
static void put_root(struct kernel_call *call, size_t index, uint64_t *state) {
    static const struct {
        const char *name;
        float root;
    } roots[] = {{"0", 0.0f}, {"the largest", 0x1.fffffep63f}, {"nearly nothing", 1e-15f}, {"a large root", 1e12f}};
    enum { ROOTS = sizeof(roots) / sizeof(roots[0]) };
    uint32_t *copy = changed[call->n_specials];
    uint32_t pick = random_below(state, ROOTS);

    memcpy(copy, call->root, call->shape.elems * sizeof(float));
    element_store(GD_F32, copy, index, element_bits(GD_F32, roots[pick].root));
    call->root = (const void *)copy;
    call->specials[call->n_specials++] = (struct special){roots[pick].name, IN_ROOT, index};
}

// A lag that is there, or the gradient where there is none.
static int some_stream(const struct kernel_call *call, uint64_t *state) {
    uint32_t lags = call->shape.lags;
    uint32_t first = lags ? random_below(state, lags) : 0;

    for (uint32_t i = 0; i < lags; i++) {
        uint32_t lag = (first + i) % lags;
        if (call->history[lag])
            return (int)lag;
    }
    return IN_GRADIENT;
}

enum part {
    FIRST_BLOCK,
    LATER_BLOCK,
    TAIL, // behind the last whole row
    PARTS,
};

// Where `position` is in that part, and a length that makes it so.
static size_t index_in_part(enum part part, size_t position, uint64_t *state, size_t *ret_elems) {
    size_t index = position;

    if (part == LATER_BLOCK)
        index += (1 + random_below(state, BLOCKS_BEFORE_MAX)) * GD_FLUSH_ELEMS;
    else if (part == TAIL)
        index += random_below(state, BLOCKS_BEFORE_MAX + 1) * GD_FLUSH_ELEMS;
    *ret_elems = index + 1 + random_below(state, ELEMS_BEHIND_MAX);
    if (part == TAIL) { // the last lane never is in one: its row is whole
        size_t lane = position % (GD_LANES - 1);
        index = index - position % GD_LANES + lane;
        *ret_elems = index + 1 + random_below(state, (uint32_t)(GD_LANES - 1 - lane));
    }
    return index;
}

struct spot {
    enum part part;
    size_t position;
    bool in_gradient;
};

static void visit_spot(struct sweeper *sweeper, enum gd_element_type type, const struct value *value, struct spot spot,
                       uint64_t *state) {
    struct kernel_call call;
    size_t elems;
    size_t index = index_in_part(spot.part, spot.position, state, &elems);
    struct call_shape shape = random_shape(type, elems, state);

    shape.distribution = GAUSSIAN; // nothing else in the call is special
    if (random_below(state, 4) > 0)
        shape.lags = 1 + shape.lags % 8; // one pass, and less to copy
    kernel_call_init(&call, "special values in every lane", sweeper->next - 1, shape, state);
    put_value(&call, spot.in_gradient ? IN_GRADIENT : some_stream(&call, state), index, value);
    sweeper->visit(sweeper->context, &call);
}

static void sweep_lanes(struct sweeper *sweeper, enum gd_element_type type, const struct value *value) {
    uint64_t state;
    struct spot spot;

    for (spot.part = FIRST_BLOCK; spot.part < PARTS; spot.part++) {
        for (spot.position = 0; spot.position < POSITIONS; spot.position++) {
            for (int stream = 0; stream < 2; stream++) {
                if (!sweeper_takes_next(sweeper, &state))
                    continue;
                spot.in_gradient = stream == 0;
                visit_spot(sweeper, type, value, spot, &state);
            }
        }
    }
}

static void visit_random(struct sweeper *sweeper, enum gd_element_type type, const struct value *values,
                         uint64_t *state) {
    struct kernel_call call;
    size_t elems = 1 + random_below(state, SPECIAL_ELEMS_MAX);
    uint32_t n = 1 + random_below(state, SPECIALS_MAX);

    kernel_call_init(&call, "special values at random", sweeper->next - 1, random_shape(type, elems, state), state);
    while (call.n_specials < n) {
        size_t index = random_below(state, (uint32_t)elems);
        uint32_t place = random_below(state, 3);
        if (place == 2 && call.root) {
            put_root(&call, index, state);
        } else {
            int stream = place == 0 ? IN_GRADIENT : some_stream(&call, state);
            put_value(&call, stream, index, &values[random_below(state, VALUES)]);
        }
    }
    sweeper->visit(sweeper->context, &call);
}

void sweep_specials(struct sweeper *sweeper) {
    uint64_t state;

    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
        struct value values[VALUES];
        fill_values(type, values);
        for (size_t i = 0; i < VALUES; i++)
            sweep_lanes(sweeper, type, &values[i]);
        for (int i = 0; i < RANDOM_CALLS / 3; i++) {
            if (sweeper_takes_next(sweeper, &state))
                visit_random(sweeper, type, values, &state);
        }
    }
}
