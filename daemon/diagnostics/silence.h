// When a run has been silent for too long: no snapshot for many times its usual interval. Pure; time is passed in.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    GD_SILENCE_INTERVALS = 32,     // whose median is a run's usual one ...
    GD_SILENCE_INTERVALS_MIN = 16, // ... or as many as there are from this on
    // However short the intervals: less is a hiccup of the machine, a checkpoint written or a look at the validation
    // set.
    GD_SILENCE_MS_MIN = 1000,
};

struct gd_silence {
    uint64_t last_ms;                           // when the last snapshot came ...
    int64_t last_step;                          // ... of which step
    uint64_t interval_ms[GD_SILENCE_INTERVALS]; // a ring
    uint32_t seen;                              // of those there are
    uint32_t next;                              // where the next one goes, over the oldest
    bool begun;                                 // a snapshot has come
    bool silent;                                // it was said that the run is silent
};

// A snapshot has come. Returns true when the run was silent; the interval of a silence does not count.
bool gd_silence_arrive(struct gd_silence *silence, uint64_t now_ms, int64_t step);

// When the run will have been silent for `intervals` median intervals; UINT64_MAX: never (INFINITY), or it is silent
// already, or too few snapshots have come to tell.
uint64_t gd_silence_deadline_ms(const struct gd_silence *silence, double intervals);

// Of at least one that was seen; of two in the middle the lower.
uint64_t gd_silence_median_ms(const struct gd_silence *silence);
