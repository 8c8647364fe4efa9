// Which snapshots have a histogram or an image beside their scalars. A reader shows 100 histograms a run, so there are
// few: every one of the first six, then three to each doubling of the run (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24,
// ...), which makes 27 in 1,000 snapshots, 57 in a million and 87 in a thousand million.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Whether the run's n-th snapshot is one of them, n from 1. Pure.
bool gd_schedule_shows(uint64_t snapshot);

// Whether it is one with an image: one to each doubling (1, 2, 4, 8, ...). A reader keeps ten. Pure.
bool gd_schedule_shows_image(uint64_t snapshot);
