// How often something has happened lately: from once in minutes to a hundred thousand times a second. Pure; time is
// passed in.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    GD_PACE_WINDOW_MS = 10000, // what "lately" means, where enough has happened in it ...
    GD_PACE_EVENTS_MIN = 4,    // ... else as far back as so many times take
    GD_PACE_MARK_MS = 1000,    // between two marks, at least
    GD_PACE_MARKS = 16,        // that is more than the window needs
};

// A moment at which it happened.
struct gd_pace_mark {
    uint64_t at_ms;
    uint64_t events; // up to there, with that one
};

// {0}: it has not happened yet.
struct gd_pace {
    uint64_t events;
    uint64_t last_ms;
    struct gd_pace_mark marks[GD_PACE_MARKS]; // a ring
    uint32_t seen;                            // of those there are
    uint32_t next;                            // where the next one goes, over the oldest
};

// It has happened once more. `now_ms` never goes back, here and below.
void gd_pace_count(struct gd_pace *pace, uint64_t now_ms);

// Times a second; NaN while that is not known.
double gd_pace_per_second(const struct gd_pace *pace, uint64_t now_ms);
