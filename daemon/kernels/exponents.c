#include "exponents.h"

#include <assert.h>

#include "kernels.h"

enum {
    TABLES = 4,        // neighbours often have the same exponent: their increments pass one another
    SMALL_ELEMS = 512, // of fewer elements the tables would cost more than the counting; less than a block
};
_Static_assert((int)SMALL_ELEMS <= (int)GD_FLUSH_ELEMS, "they are a first block's");

static uint8_t exponent_at(const void *elements, enum gd_element_type type, size_t index) {
    if (type == GD_F32)
        return gd_exponent_of(((const float *)elements)[index]);
    uint16_t half = ((const uint16_t *)elements)[index];
    // f16's subnormals are normal floats
    return gd_exponent_of(type == GD_BF16 ? gd_widen_bf16(half) : gd_widen_f16(half));
}

static void count_block(const void *elements, enum gd_element_type type, size_t elems,
                        uint32_t tables[static TABLES][GD_EXPONENTS]) {
    size_t whole = elems - elems % TABLES;
    for (size_t i = 0; i < whole; i += TABLES)
        for (size_t table = 0; table < TABLES; table++)
            tables[table][exponent_at(elements, type, i + table)]++;
    for (size_t i = whole; i < elems; i++)
        tables[0][exponent_at(elements, type, i)]++;
}

static void count_few(const void *elements, enum gd_element_type type, size_t elems,
                      uint64_t counts[static GD_EXPONENTS]) {
    for (size_t i = 0; i < elems; i++)
        counts[exponent_at(elements, type, i)]++;
}

static void count_many(const void *elements, enum gd_element_type type, size_t elems, size_t every,
                       uint64_t counts[static GD_EXPONENTS]) {
    uint32_t tables[TABLES][GD_EXPONENTS] = {{0}};

    for (size_t first = 0; first < elems; first += every * GD_FLUSH_ELEMS) {
        size_t left = elems - first;
        count_block((const uint8_t *)elements + first * gd_element_bytes(type), type,
                    left < GD_FLUSH_ELEMS ? left : GD_FLUSH_ELEMS, tables);
    }
    for (size_t exponent = 0; exponent < GD_EXPONENTS; exponent++)
        for (size_t table = 0; table < TABLES; table++)
            counts[exponent] += tables[table][exponent];
}

void gd_exponents_count(const void *elements, enum gd_element_type type, size_t elems, size_t every,
                        uint64_t counts[static GD_EXPONENTS]) {
    assert(every > 0 && elems <= UINT32_MAX);
    if (elems < SMALL_ELEMS)
        count_few(elements, type, elems, counts);
    else
        count_many(elements, type, elems, every, counts);
}
