#include "timing.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "outcome.h"
#include "pools.h"

enum {
    REPETITIONS_MAX = 101,
    CALLS_ELEMS = 4 * GD_CHUNK_ELEMS, // of a repetition: some 100 us, against a clock of some 30 ns
};

struct kind {
    const char *name;
    const char *rule;
    uint32_t lags;
};

static const struct kind kinds[] = {
    {"norm, 1 lag", "no state", 1},
    {"norm, 8 lags", "no state", 8},
    {"everything, 1 lag", "adam, corrected, eps outside", 1},
    {"everything, 8 lags", "adam, corrected, eps outside", 8},
};

struct series {
    double ns[REPETITIONS_MAX]; // per element
};

static double now_ns(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double time_once(const struct gd_kernels *kernels, const struct placed_call *placed) {
    struct outcome outcome;
    double start;

    outcome_of(kernels, placed, &outcome); // what the other kernels left in the caches and predictors is made equal
    start = now_ns();
    for (size_t elems = 0; elems < CALLS_ELEMS; elems += placed->chunk.elems)
        kernels->analyse(&placed->chunk, &outcome.sums);
    return (now_ns() - start) / CALLS_ELEMS;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(struct series *series, int n) {
    qsort(series->ns, (size_t)n, sizeof(series->ns[0]), compare_doubles);
    return series->ns[n / 2];
}

// A whole chunk of ordinary values, with all its lags.
static void place_kind(const struct kind *kind, enum gd_element_type type, struct placed_call *ret_placed) {
    uint64_t state = 1;
    struct kernel_call call;
    struct call_shape shape = {
        .type = type,
        .elems = GD_CHUNK_ELEMS,
        .lags = kind->lags,
        .form = rule_form_named(kind->rule),
        .distribution = GAUSSIAN,
    };

    kernel_call_init(&call, kind->name, 0, shape, &state);
    place_call(&call, AT_FRONT, ret_placed);
}

static void time_kind(const struct kind *kind, enum gd_element_type type, const struct gd_kernels *const *kernels,
                      size_t n_kernels, int repetitions) {
    static struct series series[VARIANTS_MAX];
    struct placed_call placed;

    place_kind(kind, type, &placed);
    for (int i = 0; i < repetitions; i++) {
        for (size_t k = 0; k < n_kernels; k++)
            series[k].ns[i] = time_once(kernels[k], &placed);
    }
    double reference = median(&series[0], repetitions);
    printf("%-4s  %-19s", element_type_names[type], kind->name);
    for (size_t k = 0; k < n_kernels; k++) {
        double ns = median(&series[k], repetitions);
        printf("  %8.4f %5.3f", ns, ns / reference);
    }
    putchar('\n');
    fflush(stdout);
}

void time_kernels(const struct gd_kernels *const *kernels, size_t n_kernels, int repetitions) {
    if (n_kernels > VARIANTS_MAX || repetitions > REPETITIONS_MAX)
        abort();
    printf("ns an element, and against the reference\n%-25s", "");
    for (size_t k = 0; k < n_kernels; k++)
        printf("  %14s", kernels[k]->name);
    putchar('\n');
    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
            time_kind(&kinds[i], type, kernels, n_kernels, repetitions);
    }
}
