#include "history.h"

#include <stdbool.h>

uint32_t gd_history_find(const struct gd_history *history, int64_t step, uint32_t ret_slot[static GD_LAG_MAX]) {
    int64_t stride = (int64_t)history->stride;
    uint32_t known = 0;

    for (uint32_t slot = 0; slot < history->n_slots; slot++) {
        const struct gd_slot_state *past = &history->slots[slot];
        if (!past->in_use || past->step == GD_HISTORY_START_STEP || (step - past->step) % stride != 0)
            continue;
        int64_t lag = (step - past->step) / stride;
        if (lag < 1 || lag > history->lags)
            continue;
        ret_slot[lag - 1] = slot;
        known |= UINT32_C(1) << (lag - 1);
    }
    return known;
}

// Whether of two snapshots the first is the one to leave a history that has no room: snapshots less than a stride apart
// must not take all slots for good. Those on the grid of first_step and the stride stay longest, so that every stride a
// step has all its lags.
static bool leaves_before(const struct gd_history *history, const struct gd_slot_state *a,
                          const struct gd_slot_state *b) {
    int64_t first = history->first_step, stride = (int64_t)history->stride;
    bool a_on_grid = (a->step - first) % stride == 0, b_on_grid = (b->step - first) % stride == 0;
    return a_on_grid == b_on_grid ? a->step < b->step : b_on_grid;
}

uint32_t gd_history_turn(const struct gd_history *history, uint32_t slot, int64_t step, uint64_t sequence,
                         uint32_t ret_left[static GD_SLOTS_MAX]) {
    int64_t reach = (int64_t)(history->stride * history->lags);
    struct gd_slot_state *slots = history->slots;
    uint32_t kept = 0, first = slot, left = 0;

    slots[slot] = (struct gd_slot_state){.step = step, .sequence = sequence, .in_use = 1};
    for (uint32_t i = 0; i < history->n_slots; i++) {
        if (i != history->pinned && slots[i].in_use && slots[i].step <= step - reach) {
            slots[i].in_use = 0;
            ret_left[left++] = i;
        }
        kept += slots[i].in_use;
        if (i != history->pinned && slots[i].in_use && leaves_before(history, &slots[i], &slots[first]))
            first = i;
    }
    if (kept == history->n_slots) {
        slots[first].in_use = 0;
        ret_left[left++] = first;
    }
    return left;
}
