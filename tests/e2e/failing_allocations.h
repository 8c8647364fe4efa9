// What a test shares with the daemon into which failing_allocations.c is preloaded: a file of this, mapped by both,
// that $GRADIENTD_TEST_ALLOCATIONS names.
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct failing_allocations {
    _Atomic int64_t left; // until the first one fails, that one included
    int64_t in_a_row;     // that fail from there on; 0: none at all
};
