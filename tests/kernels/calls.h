// A call of a kernel before it is put anywhere: its shape and its contents.
#pragma once

#include <stdio.h>

#include "kernel_values.h"

enum {
    OFFSETS = 64,     // elements behind a boundary that a chunk may begin: beyond any vector's width
    SPECIALS_MAX = 3, // in one call
};

struct call_shape {
    enum gd_element_type type;
    size_t elems;
    uint32_t lags;
    uint32_t missing_quarters; // of the lags, about
    const struct rule_form *form;
    enum distribution distribution;
    uint32_t offset;      // of the gradient, in elements
    uint32_t offset_step; // each lag begins so many elements, mod OFFSETS, behind the stream before it
    bool past_caches;     // as in struct gd_chunk
};

// An element that was replaced.
struct special {
    const char *name;
    int stream; // a lag's index in the history, or one of these:
    size_t index;
};
enum { IN_GRADIENT = -1, IN_ROOT = -2 };

struct kernel_call {
    const char *sweep;
    uint64_t number; // among all sweeps' calls
    struct call_shape shape;
    const void *gradient;
    const void *history[GD_LAG_MAX]; // NULL: missing
    const float *root, *maximum;     // NULL: none
    struct special specials[SPECIALS_MAX];
    uint32_t n_specials;
};

// A call of that shape with contents from the pools.
void kernel_call_init(struct kernel_call *call, const char *sweep, uint64_t number, struct call_shape shape,
                      uint64_t *state);

// Prints a line with all there is to know but the random values; a missing lag m is "-m".
void kernel_call_print(const struct kernel_call *call, FILE *to);
