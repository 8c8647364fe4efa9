// What a test tells the daemon's files to do: see failing_files.c.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// Lies in a file that $GRADIENTD_TEST_FAILING_FILES names, mapped by both. All zeros: nothing is wrong.
struct failing_files {
    char name[64];                // files with this in their path are meant; set once, before the daemon has any
    _Atomic int error;            // a write fails with it, 0: none does
    _Atomic uint32_t short_bytes; // a write takes at most so many bytes, 0: all
    _Atomic bool hangs;           // a write does not return before this is false again
    _Atomic bool waits;           // one does not
    _Atomic uint64_t writes;      // that have begun
};
