// The fused pass over a large model: against a plain read of the same bytes, between types, and its numerical error.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "passes.h"

enum { LAGS = 8 };

// The ratio of two passes' times, or of a pass to the plain read of its bytes where `against` is NULL.
static struct bench_series compare(const struct bench_settings *settings, struct bench_pass *pass,
                                   struct bench_pass *against) {
    struct bench_contestant contestants[] = {
        {.run = bench_run_pass, .context = pass},
        {.run = against ? bench_run_pass : bench_run_read, .context = against ? against : pass},
    };
    bench_compete(contestants, 2, settings->repetitions);
    return bench_series_ratio(&contestants[0].seconds, &contestants[1].seconds);
}

static void add_row(struct bench_report *report, const char *what, const char *kernels,
                    const struct bench_series *series, const char *unit, struct bench_goal goal) {
    char name[96];
    snprintf(name, sizeof(name), "%s, %s", what, kernels);
    bench_report_row(report, name, series, unit, goal);
}

// What is done, and the goals for the kernels that this machine would choose.
static const struct {
    const char *name;
    uint32_t lags;
    bool state;
    double goal;
} works[] = {
    {"norm + 1 lag", 1, false, 1.05},
    {"norm + 8 lags", LAGS, false, 1.15},
    {"everything, 1 lag", 1, true, 1.0},
    {"everything, 8 lags", LAGS, true, 1.10},
};

static struct bench_goal goal_of(size_t work, const struct gd_kernels *kernels, const struct gd_kernels *chosen) {
    if (kernels == chosen)
        return BENCH_AT_MOST(works[work].goal);
    if (strcmp(kernels->name, "sse4") == 0 && works[work].state && works[work].lags == LAGS)
        return BENCH_AT_MOST(1.7); // what a baseline x86-64-v2 machine has
    return BENCH_LESS;
}

static void compare_with_reads(const struct bench_settings *settings, struct bench_report *report,
                               const struct bench_memory *memory, const struct gd_kernels *chosen) {
    const struct gd_kernels *kernels;
    bool supported;

    for (size_t i = 0; (kernels = gd_kernels_variant(i, &supported)); i++) {
        if (!supported || (settings->quick && kernels == &gd_kernels_scalar))
            continue;
        for (size_t work = 0; work < sizeof(works) / sizeof(works[0]); work++) {
            struct bench_pass pass = {.memory = memory, .kernels = kernels, .threads = 1};
            pass.lags = works[work].lags;
            pass.state = works[work].state;
            struct bench_series ratio = compare(settings, &pass, NULL);
            add_row(report, works[work].name, kernels->name, &ratio, "x a plain read", goal_of(work, kernels, chosen));
        }
    }
}

static void compare_variants(const struct bench_settings *settings, struct bench_report *report,
                             const struct bench_memory *memory, const struct gd_kernels *chosen) {
    struct bench_pass everything = {.memory = memory, .kernels = chosen, .lags = LAGS, .state = true, .threads = 1};
    struct bench_pass with = everything;

    with.histogram = true;
    struct bench_series ratio = compare(settings, &with, &everything);
    add_row(report, "everything, 8 lags, with a histogram of 1 block in 8", chosen->name, &ratio, "x without",
            BENCH_AT_MOST(1.05));
    with.histogram = false;
    with.threads = 2;
    ratio = compare(settings, &with, NULL);
    add_row(report, "everything, 8 lags, 2 threads", chosen->name, &ratio, "x a read by 2 threads", BENCH_AT_MOST(1.2));
}

static void compare_types(const struct bench_settings *settings, struct bench_report *report,
                          const struct bench_memory *floats, const struct gd_kernels *chosen) {
    static const struct {
        enum gd_element_type type;
        const char *norm, *everything;
    } types[] = {
        {GD_BF16, "norm + 8 lags, bf16", "everything, 8 lags, bf16"},
        {GD_F16, "norm + 8 lags, f16", "everything, 8 lags, f16"},
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        struct bench_memory halves;
        bench_memory_init(&halves, settings->elements, types[i].type, LAGS);
        struct bench_pass f32 = {.memory = floats, .kernels = chosen, .lags = LAGS, .threads = 1}, narrow = f32;
        narrow.memory = &halves;
        struct bench_series ratio = compare(settings, &narrow, &f32);
        add_row(report, types[i].norm, chosen->name, &ratio, "x f32 of as many elements", BENCH_AT_MOST(1.0));
        narrow.state = f32.state = true;
        ratio = compare(settings, &narrow, &f32);
        add_row(report, types[i].everything, chosen->name, &ratio, "x f32 of as many elements", BENCH_AT_MOST(1.0));
        bench_memory_deinit(&halves);
    }
}

// ---- Numerical error ------------------------------------------------------------------------------------------------

static double next_unit(uint64_t *state) { // splitmix64, in (0, 1]
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return ((double)((z ^ (z >> 31)) >> 11) + 1.0) * 0x1p-53;
}

// The squared norm of `elems` elements, normal or, with `spread`, their exponentials, against an exact sum's.
static double squared_norm_error(const struct gd_kernels *kernels, uint64_t elems, double spread) {
    struct gd_chunk chunk = {.type = GD_F32};
    float *values = malloc(GD_CHUNK_ELEMS * sizeof(*values));
    long double exact = 0.0L;
    double computed = 0.0;
    uint64_t random = 1;

    if (!values)
        bench_fail("out of memory");
    chunk.gradient = values;
    for (uint64_t first = 0; first < elems; first += GD_CHUNK_ELEMS) {
        struct gd_step_sums sums;
        chunk.elems = elems - first < GD_CHUNK_ELEMS ? elems - first : GD_CHUNK_ELEMS;
        for (size_t i = 0; i < chunk.elems; i++) {
            double radius = sqrt(-2.0 * log(next_unit(&random))), angle = 2.0 * 3.14159265358979 * next_unit(&random);
            double normal = radius * cos(angle);
            values[i] = (float)(spread > 0.0 ? exp(spread * normal) : normal);
            exact += (long double)values[i] * (long double)values[i];
        }
        kernels->analyse(&chunk, &sums);
        computed += sums.squared_norm;
    }
    free(values);
    return (double)(fabsl((long double)computed - exact) / exact);
}

static void add_errors(const struct bench_settings *settings, struct bench_report *report,
                       const struct gd_kernels *chosen) {
    uint64_t elems = settings->quick ? 10000000 : 100000000;
    char name[96];
    snprintf(name, sizeof(name), "error of the squared norm, %.0e elements, Gaussian", (double)elems);
    bench_report_value(report, name, squared_norm_error(chosen, elems, 0.0), "relative", BENCH_AT_MOST(1e-9));
    snprintf(name, sizeof(name), "error of the squared norm, %.0e elements, lognormal(3)", (double)elems);
    bench_report_value(report, name, squared_norm_error(chosen, elems, 3.0), "relative", BENCH_AT_MOST(3e-8));
}

void bench_kernels(const struct bench_settings *settings, struct bench_report *report) {
    const struct gd_kernels *chosen;
    struct bench_memory memory;

    if (gd_kernels_select(getenv("GRADIENTD_KERNELS"), &chosen) < 0)
        bench_fail("GRADIENTD_KERNELS is %s, which is unknown or needs another machine", getenv("GRADIENTD_KERNELS"));
    bench_memory_init(&memory, settings->elements, GD_F32, LAGS);
    compare_with_reads(settings, report, &memory, chosen);
    compare_variants(settings, report, &memory, chosen);
    compare_types(settings, report, &memory, chosen);
    bench_memory_deinit(&memory);
    add_errors(settings, report, chosen);
}
