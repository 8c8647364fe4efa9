// What a run remembers between commits: plain data without pointers, so that a copy of it in the run's shared memory is
// all another daemon needs to go on. The daemon works on its own copy and writes a half of the memory at each commit.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "diagnostics/adam.h"
#include "diagnostics/alerts.h"
#include "diagnostics/groups.h"
#include "diagnostics/health.h"
#include "diagnostics/noise.h"
#include "gradientd/protocol.h"
#include "message.h"
#include "side_tags.h"
#include "tags.h"

enum {
    GD_SLOTS_MAX = GRADIENTD_LAG_MAX + 1 + GRADIENTD_INFLIGHT_MAX,
};

// A slot of a stream. `in_use`: it holds the committed snapshot of `step`, kept as history.
struct gd_slot_state {
    int64_t step;
    uint64_t sequence; // of the snapshot that used it last
    uint32_t in_use;
    uint32_t reserved;
};

struct gd_group_state {
    struct gd_adam_group adam;
    uint32_t half;       // which half of the optimiser state is current
    uint32_t zero_steps; // of the run's own rule: steps in a row in which its gradient was all zero
};

// What a shadow rule has that the run's own has in gd_run_state.
struct gd_shadow_state {
    struct gd_adam_state adam;
    struct gd_values unwritten;
    uint64_t described[(GD_TAG_COUNT + 63) / 64];
};

// What is shown under one name.
struct gd_series_state {
    struct gd_series_totals totals;
    struct gd_group_values unwritten; // as the run's own
    uint64_t described;               // quantities whose metadata is in the file
};

// What a stream beside the gradient has.
struct gd_side_state {
    int64_t step; // of its last snapshot, -1: none yet
    struct gd_slot_state slots[GD_SLOTS_MAX];
    double squared_norms[GD_SLOTS_MAX]; // PROBE_GRADIENT: of what the slots hold
    double lipschitz_max;               // PARAMETERS: the largest curvature/lipschitz so far
    struct gd_side_values unwritten;    // the last snapshot's values when thinning held them back
    uint64_t described[GD_SIDE_TAG_WORDS];
    uint32_t start_slot; // where its first snapshot stays, UINT32_MAX: it does not, or has not come
    uint32_t reserved;
};

// Followed by a gd_group_state per group and a gd_adam_rates per parameter group, then by a gd_shadow_state per shadow
// rule and, shadow by shadow, a gd_group_state per group, then by a gd_series_state per series, by a gd_side_state per
// stream beside the gradient, and last by the last step of each user tag, of which a commit stores those in use.
struct gd_run_state {
    uint64_t sequence; // of the last commit
    int64_t step;      // of the last snapshot, -1: none yet
    double wall_time;  // of the last snapshot
    uint64_t snapshots;
    uint64_t skipped; // what the client has dropped so far
    uint64_t starts;  // bit per array of the optimiser state: its start vector has come
    struct gd_adam_state adam;
    struct gd_health_state health;
    struct gd_alert_state alerts;
    struct gd_noise_state noise;
    struct gd_values unwritten; // the last snapshot's values when thinning held them back, for the end of the file
    uint64_t described[(GD_TAG_COUNT + 63) / 64]; // own tags whose metadata is in the file
    uint32_t user_tags;                           // entries of the user-tag table
    uint32_t ended;                               // the end record is written
    struct gd_slot_state slots[GD_SLOTS_MAX];
};

static inline struct gd_group_state *gd_run_state_groups(struct gd_run_state *state) {
    return (struct gd_group_state *)(state + 1);
}

static inline struct gd_adam_rates *gd_run_state_rates(struct gd_run_state *state, uint32_t n_groups) {
    return (struct gd_adam_rates *)(gd_run_state_groups(state) + n_groups);
}

static inline struct gd_shadow_state *gd_run_state_shadows(struct gd_run_state *state,
                                                           const struct gd_open_run *open_run) {
    return (struct gd_shadow_state *)(gd_run_state_rates(state, open_run->n_groups) + open_run->n_parameter_groups);
}

// Of the run's own rule (0) or of shadow `rule` - 1.
static inline struct gd_adam_state *gd_run_state_rule_adam(struct gd_run_state *state,
                                                           const struct gd_open_run *open_run, uint32_t rule) {
    return rule == 0 ? &state->adam : &gd_run_state_shadows(state, open_run)[rule - 1].adam;
}

static inline struct gd_group_state *gd_run_state_rule_groups(struct gd_run_state *state,
                                                              const struct gd_open_run *open_run, uint32_t rule) {
    if (rule == 0)
        return gd_run_state_groups(state);
    struct gd_shadow_state *end = gd_run_state_shadows(state, open_run) + open_run->n_shadows;
    return (struct gd_group_state *)end + (size_t)(rule - 1) * open_run->n_groups;
}

static inline struct gd_series_state *gd_run_state_series(struct gd_run_state *state,
                                                          const struct gd_open_run *open_run) {
    struct gd_shadow_state *end = gd_run_state_shadows(state, open_run) + open_run->n_shadows;
    return (struct gd_series_state *)((struct gd_group_state *)end + (size_t)open_run->n_shadows * open_run->n_groups);
}

// Of a stream that the run has.
static inline struct gd_side_state *gd_run_state_side(struct gd_run_state *state, const struct gd_open_run *open_run,
                                                      enum gd_side side) {
    struct gd_side_state *sides =
        (struct gd_side_state *)(gd_run_state_series(state, open_run) + open_run->series.n_series);
    return sides + gd_open_run_sides_before(open_run, side);
}

static inline int64_t *gd_run_state_user_tag_steps(struct gd_run_state *state, const struct gd_open_run *open_run) {
    return (int64_t *)gd_run_state_side(state, open_run, GD_SIDES);
}

// Of a whole state's `bytes`, those that its commit stores.
static inline uint64_t gd_run_state_used_bytes(const struct gd_run_state *state, uint64_t bytes) {
    return bytes - (GRADIENTD_USER_TAGS_MAX - (uint64_t)state->user_tags) * sizeof(int64_t);
}

static inline uint64_t gd_run_state_bytes(const struct gd_open_run *open_run) {
    uint64_t rules = 1 + open_run->n_shadows;
    return sizeof(struct gd_run_state) + rules * open_run->n_groups * sizeof(struct gd_group_state) +
           open_run->n_parameter_groups * sizeof(struct gd_adam_rates) +
           open_run->n_shadows * sizeof(struct gd_shadow_state) +
           open_run->series.n_series * sizeof(struct gd_series_state) +
           gd_open_run_sides_before(open_run, GD_SIDES) * sizeof(struct gd_side_state) +
           GRADIENTD_USER_TAGS_MAX * sizeof(int64_t);
}
