#include "exponents.h"

#include <assert.h>
#include <string.h>

#include "kernels.h"

// Neighbours often have the same exponent; that many tables let their increments pass one another.
enum { TABLES = 4 };

static uint8_t exponent_of(uint32_t bits) {
    return bits >> 23 & 0xff;
}

static uint8_t exponent_at(const void *elements, enum gd_element_type type, size_t index) {
    float value;
    uint32_t bits;

    if (type == GD_F32) {
        memcpy(&bits, (const float *)elements + index, sizeof(bits));
        return exponent_of(bits);
    }
    uint16_t half = ((const uint16_t *)elements)[index];
    if (type == GD_BF16)
        return exponent_of((uint32_t)half << 16);
    value = gd_widen_f16(half); // f16's subnormals are normal floats
    memcpy(&bits, &value, sizeof(bits));
    return exponent_of(bits);
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

void gd_exponents_count(const void *elements, enum gd_element_type type, size_t elems, size_t every,
                        uint64_t counts[static GD_EXPONENTS]) {
    uint32_t tables[TABLES][GD_EXPONENTS] = {{0}};

    assert(every > 0 && elems <= UINT32_MAX);
    for (size_t first = 0; first < elems; first += every * GD_FLUSH_ELEMS) {
        size_t left = elems - first;
        count_block((const uint8_t *)elements + first * gd_element_bytes(type), type,
                    left < GD_FLUSH_ELEMS ? left : GD_FLUSH_ELEMS, tables);
    }
    for (size_t exponent = 0; exponent < GD_EXPONENTS; exponent++)
        for (size_t table = 0; table < TABLES; table++)
            counts[exponent] += tables[table][exponent];
}
