#include "run_subspace.h"

#include <math.h>

void gd_run_keep_sums(const struct gd_run *run, const struct gd_submission *snapshot, const struct gd_step_sums *sums) {
    struct gd_slot_sums *kept = gd_memory_slot_sums(&run->memory, snapshot->slot);
    bool is_whole = sums->elements == run->open_run->elements && sums->non_finite == 0;

    kept->squared_norm = sums->squared_norm;
    kept->batch_size = is_whole ? snapshot->batch_size : 0.0;
    kept->clip_factor = snapshot->clip_factor;
    for (uint32_t i = 0; i < run->open_run->max_lag; i++)
        kept->dot[i] = run->input.known_lags >> i & 1 ? sums->dot[i] : (double)NAN;
}

// Row `age` from the diagonal on, with its mirror image.
static void fill_row(struct gd_gram *gram, uint32_t age, const struct gd_slot_sums *sums) {
    uint32_t n = gram->size;
    gram->entry[age * n + age] = sums ? sums->squared_norm : (double)NAN;
    for (uint32_t older = age + 1; older < n; older++)
        gram->entry[age * n + older] = gram->entry[older * n + age] = sums ? sums->dot[older - age - 1] : (double)NAN;
}

bool gd_run_gram(const struct gd_run *run, const struct gd_submission *snapshot, struct gd_gram *ret_gram) {
    uint32_t lags = run->open_run->max_lag;

    ret_gram->size = lags + 1;
    fill_row(ret_gram, 0, gd_memory_slot_sums(&run->memory, snapshot->slot));
    for (uint32_t lag = 1; lag <= lags; lag++) {
        bool known = run->input.known_lags >> (lag - 1) & 1;
        fill_row(ret_gram, lag, known ? gd_memory_slot_sums(&run->memory, run->input.lag_slot[lag - 1]) : NULL);
    }
    return run->input.known_lags == (uint32_t)((UINT64_C(1) << lags) - 1);
}
