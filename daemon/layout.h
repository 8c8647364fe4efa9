// Where everything lies in a run's shared memory: a function of OpenRun and the layout version alone.
#pragma once

#include <stdint.h>

#include "message.h"

// A stream beside the gradient; without slots the run has it not.
struct gd_side_layout {
    uint64_t slots_offset;
    uint64_t slot_stride_bytes;
    uint64_t slot_words_offset; // u64 per slot
    uint64_t slots;
};

// What is kept of a slot's snapshot beside its elements.
struct gd_slot_sums {
    double squared_norm;
    double batch_size;  // 0: not said, or the gradient is not whole
    double clip_factor; // what it was multiplied with
    double dot[];       // index m - 1: with the snapshot at lag m, NaN where there was none
};

static inline uint64_t gd_slot_sums_bytes(uint32_t max_lag) {
    return sizeof(struct gd_slot_sums) + max_lag * sizeof(double);
}

struct gd_layout {
    uint32_t version;
    uint64_t total_bytes;

    uint64_t header_offset[2];  // two header copies
    uint64_t waiting_offset;    // u32, set by the client
    uint64_t notices_offset;    // u32, raised by the daemon
    uint64_t commits_offset;    // u64, the last committed sequence
    uint64_t written_offset;    // u64, bytes of the event file that are written
    uint64_t slot_words_offset; // u64 per slot
    uint64_t state_offset[2];   // gd_run_state with its two tails
    uint64_t state_bytes;
    uint64_t user_tags_offset;   // GRADIENTD_USER_TAGS_MAX names of GRADIENTD_NAME_BYTES_MAX + 1 bytes
    uint64_t event_name_offset;  // GD_EVENT_NAME_BYTES: of a file in the daemon's state directory
    uint64_t group_norms_offset; // double per slot and group: its squared norm, negative when it was absent
    uint64_t slot_sums_offset;   // gd_slot_sums per slot, each with max_lag dot products
    uint64_t outbox_offset;
    uint64_t outbox_bytes;
    uint64_t step_records_max; // the largest step's records
    // [rule][half][array]: floats, groups at 64 bytes; rule 0 is the run's own, from 1 on its shadows
    uint64_t second_moment_offset[GD_RULES_MAX][2][GD_STATE_ARRAYS_MAX];
    uint64_t second_moment_bytes; // of each of these arrays
    uint64_t slots_offset;
    uint64_t slot_stride_bytes;
    struct gd_side_layout sides[GD_SIDES];
    uint64_t slot_sums_bytes; // of each
    uint32_t slots;
    uint32_t state_arrays[GD_RULES_MAX];
    uint32_t
        start_arrays; // of the run's own, how many StartVectors fill: each comes in half 1, its groups without gaps
};

// Elements of a group rounded up so that its state's neighbour starts on a cache line.
static inline uint64_t gd_layout_state_elems(uint64_t numel) {
    return (numel + 15) / 16 * 16;
}

void gd_layout_init(struct gd_layout *layout, const struct gd_open_run *open_run);
