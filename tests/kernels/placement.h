// Memory between pages that fault, in which a call's contents are put for a kernel.
#pragma once

#include "calls.h"

enum placement {
    AT_FRONT, // elements at their offset behind a page that faults; the state, which is aligned, right behind one
    AT_BACK,  // elements right before such a page, the state as near as its alignment allows
    PLACEMENTS,
};

enum {
    BUFFER_GRADIENT,
    BUFFER_ROOT,
    BUFFER_MAXIMUM,
    BUFFER_ROOT_NEXT,
    BUFFER_MAXIMUM_NEXT,
    BUFFER_FIRST_LAG,
    BUFFERS = BUFFER_FIRST_LAG + GD_LAG_MAX,
};

struct placed_buffer {
    uint8_t *start; // NULL: not in use
    size_t bytes;
    const void *contents; // NULL: an output
};

struct placed_call {
    const struct kernel_call *call;
    enum placement placement;
    struct gd_chunk chunk;
    struct placed_buffer buffers[BUFFERS];
};

// Maps the memory.
void placement_init(void);

// Copies the call's inputs there, where they stay until the next call. Around every buffer lie bytes of margin that are
// alike, in every type a finite element of some size, so that one read too many shows in the sums.
void place_call(const struct kernel_call *call, enum placement placement, struct placed_call *ret_placed);

// Fills the outputs with those bytes too.
void placed_call_clear_outputs(const struct placed_call *placed);

// Under the address sanitizer: makes touching a margin a finding, or no longer one. Else nothing: guard pages find what
// leaves a buffer's memory, and a byte too many of the state, which is aligned, may not.
void placed_call_poison_margins(const struct placed_call *placed, bool poisoned);

// The first buffer whose input or whose margins are not what they were; -1: none.
int placed_call_changed_buffer(const struct placed_call *placed);

// Prints the name of a buffer, or the place of an address in relation to one.
void print_buffer(int buffer, FILE *to);
void print_address(const void *address, FILE *to);
