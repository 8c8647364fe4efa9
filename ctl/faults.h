// The faults of one file, printed as they are found: lines "FILE: offset X: WHAT", or the elements of a JSON array.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { GD_FAULTS_SHOWN_MAX = 20 }; // of a file; the others are counted

struct gd_faults {
    const char *path;
    bool json;
    uint64_t n;
};

// `offset` is where the record with the fault starts.
__attribute__((format(printf, 3, 4))) void gd_faults_add(struct gd_faults *faults, uint64_t offset, const char *format,
                                                         ...);
