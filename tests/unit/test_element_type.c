#include "element_type.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>

#include "element_values.h"

static void expect_widened(enum gd_element_type type, uint32_t bits, float actual) {
    double expected = element_value(type, bits);
    bool same = isnan(expected) ? isnan(actual) : (double)actual == expected && !signbit(actual) == !signbit(expected);
    cr_assert(same, "type %d, 0x%04x: %a, expected %a", (int)type, bits, (double)actual, expected);
}

Test(element_type, every_bfloat16_is_widened_exactly) {
    for (uint32_t bits = 0; bits <= UINT16_MAX; bits++)
        expect_widened(GD_BF16, bits, gd_widen_bf16((uint16_t)bits));
}

Test(element_type, every_half_is_widened_exactly) {
    for (uint32_t bits = 0; bits <= UINT16_MAX; bits++)
        expect_widened(GD_F16, bits, gd_widen_f16((uint16_t)bits));
}

Test(element_type, the_types_of_the_wire_have_their_sizes) {
    cr_expect_eq(gd_element_bytes(GD_F32), 4);
    cr_expect_eq(gd_element_bytes(GD_BF16), 2);
    cr_expect_eq(gd_element_bytes(GD_F16), 2);
}

// The derivation that the tests rest on, at values from the formats' definitions.
Test(element_type, values_of_known_elements) {
    static const struct {
        enum gd_element_type type;
        uint32_t bits;
        double value;
    } known[] = {
        {GD_F32, 0x3f800000, 1.0},   {GD_F32, 0x00000001, 0x1p-149}, {GD_F32, 0xff7fffff, -0x1.fffffep127},
        {GD_BF16, 0x3f80, 1.0},      {GD_BF16, 0xc040, -3.0},        {GD_BF16, 0x7f7f, 0x1.fep127},
        {GD_BF16, 0x0001, 0x1p-133}, {GD_F16, 0x3c00, 1.0},          {GD_F16, 0xc200, -3.0},
        {GD_F16, 0x7bff, 65504.0},   {GD_F16, 0x0001, 0x1p-24},      {GD_F16, 0x03ff, 1023 * 0x1p-24},
        {GD_F16, 0x0400, 0x1p-14},   {GD_F16, 0x3555, 0x1.554p-2},   {GD_F16, 0x7c00, (double)INFINITY},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        cr_expect(element_value(known[i].type, known[i].bits) == known[i].value, "case %zu", i);
        cr_expect_eq(element_bits(known[i].type, (float)known[i].value), known[i].bits, "case %zu", i);
    }
}
