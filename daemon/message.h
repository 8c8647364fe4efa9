// What a client says, as validated plain structs. Produced by decode.h; every field is inside its limits.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "diagnostics/adam.h"
#include "diagnostics/alerts.h"
#include "element_type.h"
#include "gradientd/protocol.h"
#include "group_names.h"
#include "group_tags.h"
#include "side_tags.h"

struct gd_group {
    uint64_t numel;
    uint32_t parameter_group;
    uint32_t step_lag;
    char *name; // owned
};

// The streams that a run may send beside its gradient, each at its own pace.
enum gd_side {
    GD_SIDE_PROBE_GRADIENT, // the gradient on a fixed set of samples, laid out as GRADIENT is
    GD_SIDE_PARAMETERS,     // likewise: what the gradients were computed at
    GD_SIDE_OUTPUTS,        // the network's outputs on a fixed set of examples, one example after the other
    GD_SIDES,
};

// What a trainer may hand over before its first Snapshot.
enum gd_start {
    GD_START_SECOND_MOMENT, // arrays of the optimiser's state
    GD_START_SECOND_MOMENT_MAX,
    GD_START_PARAMETERS = GD_STATE_ARRAYS_MAX, // where distances are measured from
    GD_START_OUTPUTS,
    GD_STARTS,
};

// The stream of which that is the start.
static inline enum gd_side gd_start_side(uint32_t start) {
    return start == GD_START_PARAMETERS ? GD_SIDE_PARAMETERS : GD_SIDE_OUTPUTS;
}

struct gd_side_stream {
    uint64_t elements; // of one snapshot, 0: the run does not send this stream (PROBE_GRADIENT and PARAMETERS have the
                       // groups' sum once the group table is read, and 1 before)
    uint64_t stated_elements; // what OpenRun says that is, UINT64_MAX: nothing
    uint64_t examples;        // OUTPUTS
    uint64_t stride;
    enum gd_element_type element_type;
    uint32_t lags; // how many strides back its snapshots are kept
};

enum gd_hparam_kind { GD_HPARAM_NUMBER, GD_HPARAM_TEXT, GD_HPARAM_FLAG };

struct gd_hparam {
    const char *name;
    const char *text; // of kind TEXT
    double number;    // of kind NUMBER
    enum gd_hparam_kind kind;
    bool flag; // of kind FLAG
};

// The trainer's own hyperparameters. One heap block; everything it points to lies in the block.
struct gd_hparams {
    struct gd_hparam *hparam; // owned
    uint32_t n_hparams;
    uint32_t block_bytes;
    const char *group; // of runs that are to be averaged, NULL: none
};

struct gd_open_run {
    char run[GRADIENTD_RUN_BYTES_MAX + 1];
    double wall_time;
    int64_t first_step;
    uint64_t elements;        // sum of the groups' numel
    uint64_t stated_elements; // what OpenRun says that is, UINT64_MAX: nothing
    uint64_t stride;          // of GRADIENT, as is ...
    enum gd_element_type element_type;
    struct gd_side_stream sides[GD_SIDES];
    uint32_t max_lag;
    uint32_t inflight;
    bool thinning;
    struct gd_adam_config adam;
    struct gd_adam_config shadows[GD_SHADOWS_MAX]; // other rules on the same gradients
    uint32_t n_shadows;
    bool labels_from_model;
    uint32_t starts; // bit per enum gd_start: it is handed over, each by a StartVector
    uint64_t digest; // of the message and the group table: a resuming client must send the same bytes

    struct gd_group *groups; // owned
    uint32_t n_groups;
    struct gd_adam_rates *parameter_groups; // owned; learning_rate is 0 until the first Snapshot
    double *start_learning_rates; // owned: per parameter group, of the step before the first; NaN: the first's
    uint32_t n_parameter_groups;

    struct gd_alert_thresholds thresholds;

    struct gd_group_selection selection; // owned: of the groups that are shown one by one ...
    struct gd_group_series series;       // ... and what it selects

    struct gd_hparams hparams; // owned
};

// What is shown of each series: a bit per enum gd_group_quantity.
static inline uint64_t gd_open_run_quantities(const struct gd_open_run *open_run) {
    return gd_group_quantities(open_run->selection.per_group == GD_PER_GROUP_ALWAYS, open_run->max_lag);
}

static inline bool gd_open_run_has_side(const struct gd_open_run *open_run, enum gd_side side) {
    return open_run->sides[side].elements > 0;
}

// PARAMETERS and OUTPUTS keep their first snapshot as long as the run lasts.
static inline bool gd_side_keeps_start(enum gd_side side) {
    return side != GD_SIDE_PROBE_GRADIENT;
}

// Whether the optimiser's state is handed over.
static inline bool gd_open_run_starts_state(const struct gd_open_run *open_run) {
    return open_run->starts & ((UINT32_C(1) << GD_STATE_ARRAYS_MAX) - 1);
}

// Whether the stream's start is handed over.
static inline bool gd_open_run_starts_side(const struct gd_open_run *open_run, enum gd_side side) {
    return gd_side_keeps_start(side) &&
           open_run->starts >> (side == GD_SIDE_PARAMETERS ? GD_START_PARAMETERS : GD_START_OUTPUTS) & 1;
}

// The step that a side's tag measures from, for gd_side_tag_describe(): that of a start that was handed over is the
// run's own.
static inline int64_t gd_open_run_measures_from(const struct gd_open_run *open_run, enum gd_side_tag tag) {
    enum gd_side side = tag == GD_SIDE_TAG_PARAMETERS_FROM_START ? GD_SIDE_PARAMETERS : GD_SIDE_OUTPUTS;
    return gd_open_run_starts_side(open_run, side) ? 1 : open_run->first_step;
}

// Of those before it, how many the run has: where a side lies among a run's own. GD_SIDES: all of them.
static inline uint32_t gd_open_run_sides_before(const struct gd_open_run *open_run, enum gd_side side) {
    uint32_t sides = 0;
    for (enum gd_side i = 0; i < side; i++)
        sides += gd_open_run_has_side(open_run, i);
    return sides;
}

void gd_open_run_free(struct gd_open_run *open_run);

// What it takes in memory. The names count once they are read.
uint64_t gd_open_run_bytes(const struct gd_open_run *open_run);

// The run's own rule (0) or shadow `rule` - 1.
static inline const struct gd_adam_config *gd_open_run_rule(const struct gd_open_run *open_run, uint32_t rule) {
    return rule == 0 ? &open_run->adam : &open_run->shadows[rule - 1];
}

struct gd_user_scalar {
    const char *tag;
    float value;
    uint32_t index; // in the run's user tags; set when the run accepts the submission
};

// The squared norm of a gradient averaged over fewer examples than the step's own, before clipping.
struct gd_squared_norm {
    double batch_size;       // positive and finite
    double value;            // not negative; Inf or NaN where that gradient was not finite
    const double *per_group; // n_per_group of them, likewise
    size_t n_per_group;      // 0: not given
};

enum gd_submission_kind {
    GD_SUBMISSION_SNAPSHOT,
    GD_SUBMISSION_START,
    GD_SUBMISSION_SCALARS,
    GD_SUBMISSION_CLOSE,
};

// How a submission's elements come.
enum gd_delivery {
    GD_IN_SLOT, // they lie in shared memory, or there are none
    GD_INLINE,  // in the frame's payload
    GD_INLINE_DEFLATED,
};

// One of the four messages that commit in sequence. One heap block; everything it points to lies in the block.
struct gd_submission {
    struct gd_submission *next;
    size_t bytes;          // that it takes of the block ...
    size_t capacity_bytes; // ... which has so many
    enum gd_submission_kind kind;
    uint64_t sequence;

    // Snapshot and Scalars; of CloseRun the last step that was skipped after the last Snapshot, -1: none
    int64_t step;
    double wall_time;
    struct gd_user_scalar *scalars;
    uint32_t n_scalars;

    // Snapshot and CloseRun; of StartVector the last step that the vector holds
    bool has_optimizer_step;
    uint64_t optimizer_step;
    uint64_t skipped; // steps the client has dropped so far; not of StartVector

    // Snapshot and StartVector
    enum gd_delivery delivery;
    uint32_t slot;         // of elements that are inline: once the run has one for them
    uint32_t inline_bytes; // of the frame's payload
    uint32_t start;        // StartVector: enum gd_start

    // Snapshot
    uint32_t sides; // bit per enum gd_side: it has elements of that stream, in ...
    uint32_t side_slot[GD_SIDES];
    int64_t model_version;         // the step whose parameters the gradient was computed at
    struct gd_adam_rates *rates;   // per parameter group; NaN beta2 or eps: as before
    const uint8_t *groups_present; // bitmap; NULL: all
    size_t groups_present_bytes;
    double batch_size;  // examples averaged in the gradient, 0: not said
    double clip_factor; // by which it was multiplied, 1: not clipped
    struct gd_squared_norm *squared_norms;
    uint32_t n_squared_norms; // not 0 only with batch_size
    uint32_t n_rates;
    bool applied;
    bool has_model_version;

    bool failed; // CloseRun: the outcome
};

static inline bool gd_submission_has_group(const struct gd_submission *submission, uint32_t group) {
    return !submission->groups_present || submission->groups_present[group / 8] >> (group % 8) & 1;
}

// Keeps the block of a submission that is done with for the next one, so that a steady stream of steps costs no malloc.
// {0} is empty. For one thread.
struct gd_submission_pool {
    struct gd_submission *spare; // owned
};

// A submission of `bytes` bytes, all zero but for its sizes; NULL when there is no memory for it. `pool` may be NULL.
// It is freed with free() or gd_submission_free().
struct gd_submission *gd_submission_new(struct gd_submission_pool *pool, size_t bytes);
void gd_submission_free(struct gd_submission_pool *pool, struct gd_submission *submission);
void gd_submission_pool_deinit(struct gd_submission_pool *pool);
