// What a client says, as validated plain structs. Produced by decode.h; every field is inside its limits.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "diagnostics/adam.h"
#include "element_type.h"
#include "gradientd/protocol.h"
#include "group_names.h"
#include "group_tags.h"

struct gd_group {
    uint64_t numel;
    uint32_t parameter_group;
    uint32_t step_lag;
    char *name; // owned
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
    uint32_t max_lag;
    uint32_t inflight;
    bool thinning;
    struct gd_adam_config adam;
    struct gd_adam_config shadows[GD_SHADOWS_MAX]; // other rules on the same gradients
    uint32_t n_shadows;
    bool starts;     // the optimiser's state is handed over: one StartVector for each of its arrays
    uint64_t digest; // of the message and the group table: a resuming client must send the same bytes

    struct gd_group *groups; // owned
    uint32_t n_groups;
    struct gd_adam_rates *parameter_groups; // owned; learning_rate is 0 until the first Snapshot
    double *start_learning_rates; // owned: per parameter group, of the step before the first; NaN: the first's
    uint32_t n_parameter_groups;

    struct gd_group_selection selection; // owned: of the groups that are shown one by one ...
    struct gd_group_series series;       // ... and what it selects

    struct gd_hparams hparams; // owned
};

// What is shown of each series: a bit per enum gd_group_quantity.
static inline uint64_t gd_open_run_quantities(const struct gd_open_run *open_run) {
    return gd_group_quantities(open_run->selection.per_group == GD_PER_GROUP_ALWAYS, open_run->max_lag);
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
    uint32_t start_array;  // StartVector: 0 the second moment, 1 its maximum

    // Snapshot
    bool applied;
    struct gd_adam_rates *rates; // per parameter group; NaN beta2 or eps: as before
    uint32_t n_rates;
    const uint8_t *groups_present; // bitmap; NULL: all
    size_t groups_present_bytes;

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
