// Rules that watch a run's steps and say when one looks like a fault: once when that begins (the onset), and once when
// it is over (the clearing), so that a signal that flaps does not flood.
//
// Pure: what follows from (state, thresholds, step) alone.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "step_sums.h"
#include "tags.h"

// The numeric values are kept in the runs' shared memory.
enum gd_alert_rule {
    GD_ALERT_NON_FINITE,  // elements that are NaN or infinite
    GD_ALERT_NORM_SPIKE,  // |g_t| far above those of the steps before
    GD_ALERT_RMS,         // adam/rms: the second moment is out of date
    GD_ALERT_COSINE,      // the mean of coherence/cosine_lag1: steps undo each other
    GD_ALERT_OSCILLATION, // adam/oscillation: effective steps do not settle
    GD_ALERT_ZERO_GROUP,  // a group without any gradient but 0
    GD_ALERT_RULES,
};

enum {
    // Steps without the fault until a rule clears. A fault that shows at least once in so many is one fault.
    GD_ALERT_QUIET_STEPS = 16,
    // Onsets and clearings of a rule that are written in a run; the others are counted.
    GD_ALERT_TEXTS_MAX = 64,

    GD_ALERT_NORMS = 128,     // that a norm is compared with ...
    GD_ALERT_NORMS_MIN = 64,  // ... or as many as there are from this on
    GD_ALERT_COSINES = 100,   // whose mean is judged
    GD_ALERT_SETTLING = 1000, // applied steps in the totals before their oscillation is judged

    // Steps in a row that are not finite and that the optimiser did not take. Fewer are what loss scaling is for: it
    // skips such a step and goes on with half the scale, from 2^16 down to 1 with the sixteenth.
    GD_ALERT_UNAPPLIED_STEPS = 16,
};

// Of each rule but the first. INFINITY switches a rule off, of the cosine -INFINITY.
struct gd_alert_thresholds {
    double norm_spike_sd;      // standard deviations above the mean
    double rms;                // above
    double cosine_mean;        // below
    double oscillation;        // above
    uint32_t zero_group_steps; // at least so many in a row, from 1 on; UINT32_MAX: off
    uint32_t reserved;
    double silence_intervals; // median intervals without a snapshot, see silence.h
};

// 6 sd; rms 2.3 (arXiv 2304.13013); a mean cosine of -0.3; an oscillation of 0.1; 100 steps; 10 intervals.
extern const struct gd_alert_thresholds gd_alert_thresholds_default;

// A rule's last onset or clearing.
struct gd_alert {
    int64_t step;
    int64_t onset_step; // of a clearing: when the onset was; of an onset: `step`
    double value;       // what was judged: elements, a norm, a mean, steps
    double limit;       // of the onset: what it was compared with
    uint32_t group;     // of the onset: the first one at fault, UINT32_MAX: the rule names none
    uint32_t onset;     // 1; 0: a clearing
};

struct gd_alert_rule_state {
    struct gd_alert last;
    uint32_t count; // onsets and clearings so far; 0: there is no `last`
    uint32_t quiet; // judged steps in a row without the fault, since the onset
};

struct gd_alert_state {
    struct gd_alert_rule_state rules[GD_ALERT_RULES];
    float norms[GD_ALERT_NORMS]; // a ring
    uint32_t norms_seen;         // of those there are
    uint32_t norms_next;         // where the next one goes, over the oldest
    // Cosines in units of 2^-30, so that a running sum of theirs is exact.
    int32_t cosines[GD_ALERT_COSINES]; // a ring
    uint32_t cosines_seen;
    uint32_t cosines_next;
    int64_t cosine_sum;
    uint32_t unapplied; // steps in a row that were not finite and not applied
    uint32_t reserved;
};

// A snapshot, as the rules see it.
struct gd_alert_step {
    int64_t step;
    const struct gd_step_sums *sums;
    const struct gd_values *values; // of this step
    bool applied;
    bool judges_rms;           // the rule has a b2 that lets adam/rms pass its threshold: above 0.81
    uint64_t counted;          // applied steps in the Adam-type totals
    uint32_t zero_group;       // the first group that has been all zero for long enough, UINT32_MAX: none
    uint32_t zero_group_steps; // for how many
};

// Judges a step and moves the state on.
void gd_alerts_judge(struct gd_alert_state *state, const struct gd_alert_thresholds *thresholds,
                     const struct gd_alert_step *step);

// Whether the rule had an onset or a clearing at that step, which is then `last`.
static inline bool gd_alerts_turned(const struct gd_alert_state *state, enum gd_alert_rule rule, int64_t step) {
    return state->rules[rule].count > 0 && state->rules[rule].last.step == step;
}

// Whether it is one of those that are written.
static inline bool gd_alerts_writes(const struct gd_alert_state *state, enum gd_alert_rule rule) {
    return state->rules[rule].count <= GD_ALERT_TEXTS_MAX;
}

// Counts the steps in a row in which a group that is present was all zero.
void gd_alerts_count_zeros(const struct gd_step_sums *group, uint32_t *zero_steps);

// Whether a state can be one of a run of `n_groups` groups: for one that comes from outside.
bool gd_alerts_are_valid(const struct gd_alert_state *state, uint32_t n_groups);
