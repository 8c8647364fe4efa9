// Which of a stream's slots are its history: a slot is kept until its lag has passed. Pure.
#pragma once

#include <stdint.h>

#include "run_state.h"

// In place of a step: a start that was handed over, which is no lag of any snapshot. (All it shares with a step is that
// it compares with others.)
enum { GD_HISTORY_START_STEP = -1 };

// A stream's slots and what decides about them.
struct gd_history {
    struct gd_slot_state *slots;
    uint32_t n_slots;
    uint32_t lags; // how many strides back a snapshot is kept
    uint64_t stride;
    int64_t first_step; // of the run: its strides are counted from there
    uint32_t pinned;    // a slot that stays whatever its age, UINT32_MAX: none
};

// Finds the snapshots exactly m strides before `step`. Returns a bit m - 1 for each, with its slot in ret_slot[m - 1].
uint32_t gd_history_find(const struct gd_history *history, int64_t step, uint32_t ret_slot[static GD_LAG_MAX]);

// Slot `slot` joins with the snapshot of `step`; slots whose last lag has passed leave, and another one does where none
// would be left. Returns how many left, with their numbers in ret_left.
uint32_t gd_history_turn(const struct gd_history *history, uint32_t slot, int64_t step, uint64_t sequence,
                         uint32_t ret_left[static GD_SLOTS_MAX]);
