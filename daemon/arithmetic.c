#include "arithmetic.h"

#include <float.h>
#include <math.h>
#include <string.h>

_Static_assert(FLT_EVAL_METHOD == 0, "the error terms below need every operation rounded to double");
_Static_assert(sizeof(double) == sizeof(uint64_t) && DBL_MANT_DIG == 53, "IEEE 754 binary64");

// A squaring doubles the relative error it is given and adds a rounding: 2^k steps end at 2^k roundings.
double gd_power(double base, uint64_t exponent) {
    double result = 1.0;
    double square = base;

    while (exponent > 0) {
        if (exponent & 1)
            result *= square;
        square *= square;
        exponent >>= 1;
    }
    return result;
}

// Splits x > 0 into *ret_mantissa in [1, 2) and the exponent it returns.
static int split(double x, double *ret_mantissa) {
    enum { MANTISSA_BITS = 52, EXPONENT_BIAS = 1023 };
    const uint64_t mantissa_mask = (UINT64_C(1) << MANTISSA_BITS) - 1;
    int scaled_by = 0;
    uint64_t bits;

    if (x < DBL_MIN) {
        x *= 0x1p54;
        scaled_by = 54;
    }
    memcpy(&bits, &x, sizeof(bits));
    int exponent = (int)(bits >> MANTISSA_BITS) - EXPONENT_BIAS - scaled_by;

    bits = (bits & mantissa_mask) | (uint64_t)EXPONENT_BIAS << MANTISSA_BITS;
    memcpy(ret_mantissa, &bits, sizeof(bits));
    return exponent;
}

// With x = 2^k m, m in [sqrt(1/2), sqrt(2)], and s = (m - 1) / (m + 1):
//     ln m = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...),   |s| <= (sqrt(2) - 1) / (sqrt(2) + 1) = 0.17158.
// After n terms the rest is below s^2n / ((2n + 1) (1 - s^2)) of the sum: n = 10 gives 0.029438^10 / 20.4 = 2.4e-17,
// under half a rounding (1.1e-16). m - 1 is exact, so for k = 0 the error is a handful of roundings relative to the
// result however near x is to 1; for k != 0 the result is at least 1/2 in size and the series at most 1/2.
double gd_log2(double x) {
    enum { TERMS = 10 };
    const double sqrt_2 = 1.41421356237309504880;
    const double two_over_ln_2 = 2.88539008177792681472;
    double m;

    if (!(x > 0.0 && x <= DBL_MAX))
        return nan("");

    int exponent = split(x, &m);
    if (m > sqrt_2) {
        m *= 0.5;
        exponent++;
    }

    double s = (m - 1.0) / (m + 1.0);
    double series = 0.0;
    for (int term = TERMS - 1; term >= 0; term--)
        series = series * (s * s) + 1.0 / (2 * term + 1);
    return exponent + two_over_ln_2 * (s * series);
}
