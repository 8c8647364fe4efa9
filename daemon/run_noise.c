#include "run_noise.h"

#include <math.h>

// Whether they are of that many elements, all of them finite: the norm of a part, or of one that counts elements as 0,
// is no estimate of the whole's.
static bool are_whole(const struct gd_step_sums *sums, uint64_t elements) {
    return sums->elements == elements && sums->non_finite == 0;
}

static double unclipped(double squared_norm, double clip_factor) {
    return squared_norm / clip_factor / clip_factor;
}

static double smallest_batch_size(const struct gd_submission *snapshot) {
    double smallest = snapshot->n_squared_norms > 0 ? snapshot->squared_norms[0].batch_size : 0.0;
    for (uint32_t i = 1; i < snapshot->n_squared_norms; i++)
        if (snapshot->squared_norms[i].batch_size < smallest)
            smallest = snapshot->squared_norms[i].batch_size;
    return smallest;
}

// Of the smallest batch size, the mean: workers' or microbatches' norms are one estimate, and the further apart two
// sizes are, the less noise their difference has.
static struct gd_noise_batch smaller_batch(const struct gd_submission *snapshot) {
    struct gd_noise_batch batch = {.batch_size = smallest_batch_size(snapshot)};
    uint32_t n = 0;
    for (uint32_t i = 0; i < snapshot->n_squared_norms; i++)
        if (!(snapshot->squared_norms[i].batch_size > batch.batch_size)) {
            batch.squared_norm += snapshot->squared_norms[i].value;
            n++;
        }
    batch.squared_norm = n > 0 ? batch.squared_norm / n : 0.0;
    return batch;
}

bool gd_run_noise_values(struct gd_run *run, const struct gd_submission *snapshot, const struct gd_step_sums *sums,
                         struct gd_values *values) {
    if (snapshot->batch_size == 0.0 || !are_whole(sums, run->open_run->elements))
        return false;
    struct gd_noise_step step = {
        .step = snapshot->step,
        .labels_from_model = run->open_run->labels_from_model,
        .big = {snapshot->batch_size, unclipped(sums->squared_norm, snapshot->clip_factor)},
        .small = smaller_batch(snapshot),
    };
    if (run->input.known_lags & 1) {
        const struct gd_slot_sums *past = gd_memory_slot_sums(&run->memory, run->input.lag_slot[0]);
        step.past.batch_size = past->batch_size;
        step.past.squared_norm = unclipped(past->squared_norm, past->clip_factor);
        step.dot = sums->dot[0] / snapshot->clip_factor / past->clip_factor;
    }
    return gd_noise_values(&run->state->noise, &step, values);
}

double gd_run_series_norms(struct gd_run *run, const struct gd_submission *snapshot) {
    const struct gd_group_series *series = &run->open_run->series;
    double batch_size = smallest_batch_size(snapshot);
    uint32_t n = 0;

    if (snapshot->n_squared_norms == 0 || series->n_series == 0)
        return 0.0;
    for (uint32_t i = 0; i < series->n_series; i++)
        run->series_norms[i] = (struct gd_series_norms){0};
    for (uint32_t i = 0; i < snapshot->n_squared_norms; i++) {
        const struct gd_squared_norm *norm = &snapshot->squared_norms[i];
        if (norm->batch_size > batch_size)
            continue;
        if (norm->n_per_group == 0) // the mean would be another one than the whole's
            return 0.0;
        n++;
        for (uint32_t group = 0; group < run->open_run->n_groups; group++)
            if (gd_group_series_of(series, group) != GD_NO_SERIES)
                run->series_norms[series->of_group[group]].small += norm->per_group[group];
    }
    for (uint32_t group = 0; group < run->open_run->n_groups; group++)
        if (gd_group_series_of(series, group) != GD_NO_SERIES)
            run->series_norms[series->of_group[group]].elements += run->open_run->groups[group].numel;
    for (uint32_t i = 0; i < series->n_series; i++)
        run->series_norms[i].small /= n;
    return batch_size;
}

bool gd_run_series_fisher(const struct gd_run *run, uint32_t series, double batch_size,
                          const struct gd_submission *snapshot, const struct gd_step_sums *sums, double *ret_fisher) {
    struct gd_noise_estimate estimate;
    if (batch_size == 0.0 || !are_whole(sums, run->series_norms[series].elements))
        return false;
    const struct gd_noise_batch small = {batch_size, run->series_norms[series].small};
    const struct gd_noise_batch big = {snapshot->batch_size, unclipped(sums->squared_norm, snapshot->clip_factor)};
    if (!gd_noise_of_sizes(&small, &big, &estimate))
        return false;
    *ret_fisher = estimate.S + estimate.G2;
    return true;
}
