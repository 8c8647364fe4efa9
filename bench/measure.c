#include "measure.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bench_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void bench_series_add(struct bench_series *series, double value) {
    assert(series->n < BENCH_REPETITIONS_MAX);
    series->value[series->n++] = value;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_quantile(double *values, size_t n, double q) {
    if (n == 0)
        return (double)NAN;
    qsort(values, n, sizeof(*values), compare);
    double place = q * (double)(n - 1);
    size_t below = (size_t)place;
    size_t above = below + 1 < n ? below + 1 : below;
    return values[below] + (place - (double)below) * (values[above] - values[below]);
}

double bench_series_quantile(const struct bench_series *series, double q) {
    double sorted[BENCH_REPETITIONS_MAX];
    memcpy(sorted, series->value, series->n * sizeof(*sorted));
    return bench_quantile(sorted, series->n, q);
}

struct bench_series bench_series_in_units(const struct bench_series *series, double unit) {
    struct bench_series scaled = {.n = 0};
    for (size_t i = 0; i < series->n; i++)
        bench_series_add(&scaled, series->value[i] / unit);
    return scaled;
}

struct bench_series bench_series_ratio(const struct bench_series *a, const struct bench_series *b) {
    struct bench_series ratio = {.n = 0};
    assert(a->n == b->n);
    for (size_t i = 0; i < a->n; i++)
        bench_series_add(&ratio, a->value[i] / b->value[i]);
    return ratio;
}

void bench_compete(struct bench_contestant *contestants, size_t n, size_t repetitions) {
    for (size_t i = 0; i < n; i++)
        contestants[i].run(contestants[i].context);
    for (size_t repetition = 0; repetition < repetitions; repetition++) {
        for (size_t i = 0; i < n; i++) {
            double start = bench_now();
            contestants[i].run(contestants[i].context);
            bench_series_add(&contestants[i].seconds, bench_now() - start);
        }
    }
}
