// Histograms by exponent against frexp() of each element.
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "element_values.h"
#include "kernels/exponents.h"
#include "kernels/kernels.h"

static size_t exponent_by_frexp(double x) {
    int exponent;
    if (!isfinite(x))
        return GD_EXPONENT_SPECIAL;
    if (fabs(x) < 0x1p-126)
        return GD_EXPONENT_SMALL;
    frexp(x, &exponent); // |x| = m 2^exponent with m in [1/2, 1)
    return (size_t)(exponent - 1 + 127);
}

static void expect_all_halves(enum gd_element_type type) {
    static uint16_t halves[1 << 16];
    uint64_t counts[GD_EXPONENTS] = {0}, expected[GD_EXPONENTS] = {0};
    for (size_t i = 0; i < 1 << 16; i++) {
        halves[i] = (uint16_t)i;
        expected[exponent_by_frexp((double)element_value(type, (uint32_t)i))]++;
    }
    gd_exponents_count(halves, type, 1 << 16, 1, counts);
    cr_expect_arr_eq(counts, expected, sizeof(counts), "type %d", (int)type);
}

Test(exponents, every_half) {
    expect_all_halves(GD_BF16);
    expect_all_halves(GD_F16);
}

Test(exponents, floats_of_every_exponent_and_every_length) {
    enum { N = 3 * GD_EXPONENTS + 1 };
    float floats[N];
    for (uint32_t i = 0; i < N; i++) {
        uint32_t bits = i % GD_EXPONENTS << 23 | (i % 3 * 0x2aaaaau) | i % 2 << 31;
        memcpy(&floats[i], &bits, sizeof(bits));
    }
    for (size_t elems = 0; elems <= N; elems++) {
        uint64_t counts[GD_EXPONENTS] = {0}, expected[GD_EXPONENTS] = {0};
        for (size_t i = 0; i < elems; i++)
            expected[exponent_by_frexp((double)floats[i])]++;
        gd_exponents_count(floats, GD_F32, elems, 1, counts);
        cr_assert_arr_eq(counts, expected, sizeof(counts), "%zu elements", elems);
    }
}

Test(exponents, counts_add_up) {
    const float ones[5] = {1.0f, 1.0f, -1.0f, 1.5f, 2.0f};
    uint64_t counts[GD_EXPONENTS] = {[127] = 10};
    gd_exponents_count(ones, GD_F32, 5, 1, counts);
    cr_expect_eq(counts[127], 14);
    cr_expect_eq(counts[128], 1);
}

// Each block's elements tell which it is.
Test(exponents, one_block_in_so_many) {
    enum { BLOCKS = 10, LAST_ELEMS = 5 };
    static float floats[BLOCKS * GD_FLUSH_ELEMS + LAST_ELEMS];
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        floats[i] = ldexpf(1.25f, (int)(i / GD_FLUSH_ELEMS));

    for (size_t every = 1; every <= BLOCKS + 1; every++) {
        uint64_t counts[GD_EXPONENTS] = {0};
        gd_exponents_count(floats, GD_F32, sizeof(floats) / sizeof(floats[0]), every, counts);
        for (size_t block = 0; block <= BLOCKS; block++) {
            uint64_t elems = block < BLOCKS ? GD_FLUSH_ELEMS : LAST_ELEMS;
            cr_expect_eq(counts[127 + block], block % every == 0 ? elems : 0, "block %zu, one in %zu", block, every);
        }
    }
}
