#include "element_values.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

struct format {
    int exponent_bits, mantissa_bits;
};

static struct format format_of(enum gd_element_type type) {
    return type == GD_F32 ? (struct format){8, 23} : type == GD_BF16 ? (struct format){8, 7} : (struct format){5, 10};
}

double element_value(enum gd_element_type type, uint32_t bits) {
    struct format format = format_of(type);
    int largest = (1 << format.exponent_bits) - 1;
    int bias = largest / 2;
    int exponent = (int)(bits >> format.mantissa_bits) & largest;
    int mantissa = (int)bits & ((1 << format.mantissa_bits) - 1);
    bool negative = bits >> (format.exponent_bits + format.mantissa_bits) & 1;
    double size;

    if (exponent == largest)
        size = mantissa ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        size = ldexp(mantissa, 1 - bias - format.mantissa_bits);
    else
        size = ldexp(mantissa + (1 << format.mantissa_bits), exponent - bias - format.mantissa_bits);
    return negative ? -size : size;
}

// Bits without their sign are in the order of the values.
static uint32_t half_bits(enum gd_element_type type, float value) {
    struct format format = format_of(type);
    uint32_t infinity = ((UINT32_C(1) << format.exponent_bits) - 1) << format.mantissa_bits;
    uint32_t low = 0, high = infinity; // value(low) <= |value| < value(high), or value is not below infinity
    uint32_t sign = (uint32_t)(signbit(value) != 0) << (format.exponent_bits + format.mantissa_bits);

    if (isnan(value))
        return sign | infinity | 1;
    if (isinf(value))
        return sign | infinity;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (element_value(type, middle) <= fabs((double)value))
            low = middle;
        else
            high = middle;
    }
    return sign | low;
}

uint32_t element_bits(enum gd_element_type type, float value) {
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return type == GD_F32 ? bits : half_bits(type, value);
}

void element_store(enum gd_element_type type, void *elements, size_t i, uint32_t bits) {
    size_t bytes = gd_element_bytes(type);
    uint16_t half = (uint16_t)bits;

    memcpy((uint8_t *)elements + i * bytes, type == GD_F32 ? (const void *)&bits : (const void *)&half, bytes);
}
