// The few elementary functions that reach an event file, from + - * / and sqrt alone: libm's differ between machines.
#pragma once

#include <stdint.h>

// base^exponent by repeated squaring; 1 for exponent 0. Relative error below exponent x 2^-52: for a decay rate b,
// 1 - b^t stays good to some 1e-16 / (1 - b).
double gd_power(double base, uint64_t exponent);

// log2(x) for finite x > 0, relative error below 1e-14 (absolute near x = 1 likewise relative to log2(x)).
double gd_log2(double x);
