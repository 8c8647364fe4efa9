// The kernels over the streams beside the gradient: slots in, sums out.
#pragma once

#include "counters.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "run_state.h"

// Which slots a snapshot's sums are taken over.
struct gd_side_input {
    uint32_t present;                           // bit per enum gd_side: the snapshot has the stream
    uint32_t known_lags[GD_SIDES];              // bit m - 1: its snapshot at lag m exists, in ...
    uint32_t slot[GD_SIDES];                    // (of its own)
    uint32_t lag_slot[GD_SIDES][GD_LAG_MAX];    // index m - 1
    uint32_t start_slot[GD_SIDES];              // UINT32_MAX: no first snapshot before this one
    bool has_secant;                            // PARAMETERS and PROBE_GRADIENT both have a snapshot one stride ago
    double probe_squared_norm_past[GD_LAG_MAX]; // index m - 1
};

struct gd_side_sums {
    struct gd_step_sums probe;                       // norm, dot products and what belongs to them
    struct gd_difference_sums differences[GD_SIDES]; // of PARAMETERS (the other vector: the probe gradient), of OUTPUTS
};

struct gd_side_analysis;

// What a run with such streams takes for it; 0: it has none.
uint64_t gd_side_analysis_bytes(const struct gd_open_run *open_run);

// `open_run` and `memory` outlive it. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_side_analysis_new(const struct gd_open_run *open_run,
                                                             const struct gd_memory *memory,
                                                             const struct gd_kernels *kernels,
                                                             struct gd_side_analysis **ret_analysis);
void gd_side_analysis_free(struct gd_side_analysis *analysis); // NULL is allowed

// As gd_analysis_set_progress().
void gd_side_analysis_set_progress(struct gd_side_analysis *analysis, _Atomic uint64_t *progress);

// Does part `part` of `parts` of a snapshot's work. Threads may do different parts at once. `input` stays until the
// end.
void gd_side_analysis_run(struct gd_side_analysis *analysis, const struct gd_side_input *input, uint32_t part,
                          uint32_t parts);

// After all parts: the sums, merged in the order of chunks.
void gd_side_analysis_end(const struct gd_side_analysis *analysis, const struct gd_side_input *input,
                          struct gd_side_sums *ret_sums);
