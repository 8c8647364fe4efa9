// Time, repetitions and their spread. What is compared takes turns in one run, so that a noisy machine disturbs all
// alike; a ratio is taken within each turn, and its median reported.
#pragma once

#include <stddef.h>

enum { BENCH_REPETITIONS_MAX = 101 };

double bench_now(void); // CLOCK_MONOTONIC seconds

// Values of one quantity over the repetitions.
struct bench_series {
    double value[BENCH_REPETITIONS_MAX];
    size_t n;
};

void bench_series_add(struct bench_series *series, double value);

// The quantile `q` from 0 to 1, interpolated; 0.5 is the median. NAN when empty. The values are left sorted.
double bench_quantile(double *values, size_t n, double q);

// Of a series, which stays as it is.
double bench_series_quantile(const struct bench_series *series, double q);

// Its values divided by `unit`.
struct bench_series bench_series_in_units(const struct bench_series *series, double unit);

// a / b, repetition by repetition.
struct bench_series bench_series_ratio(const struct bench_series *a, const struct bench_series *b);

// One of those that take turns: `run` does the work once.
struct bench_contestant {
    void (*run)(void *context);
    void *context;
    struct bench_series seconds; // filled by bench_compete()
};

// Each runs once unmeasured, then `repetitions` times in turn.
void bench_compete(struct bench_contestant *contestants, size_t n, size_t repetitions);
