#include "analysis.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "adam_track.h"
#include "chunk_record.h"
#include "diagnostics/schedule.h"
#include "fault.h"

enum {
    PART_ELEMS_MIN = 4 * GD_CHUNK_ELEMS, // below this, waking another thread costs more than it saves
};

// Stored in place of a squared norm for a group that was absent from a snapshot.
static const double ABSENT = -1.0;

struct chunk_place {
    uint64_t start; // element of the group
    uint32_t elems;
    uint32_t group;
};

struct group_place {
    uint64_t slot_offset;  // elements before it in a slot
    uint64_t state_offset; // ... and in an array of the optimiser state
};

// What a shadow adds to a chunk's sums: its rule's own terms. All else is the gradient's, and in the run's sums
// already.
struct shadow_sums {
    double A, B, C, D;
    double relative_square;
    float step_size_min;
};

struct gd_analysis {
    const struct gd_open_run *open_run;
    const struct gd_memory *memory;
    const struct gd_kernels *kernels;
    struct group_place *groups;
    struct chunk_place *chunks;
    uint64_t n_chunks;
    uint8_t *records; // of the chunks, each of ...
    size_t record_bytes;
    struct shadow_sums *shadow_sums; // of shadow s from n_chunks x s on
    struct gd_adam_track tracks[GD_RULES_MAX];
    struct gd_step_sums *series_sums;
    struct gd_log2_counts log2;
    _Atomic uint64_t *progress; // NULL: not told

    // the snapshot under way
    const struct gd_analysis_input *input;
    const uint8_t *elements;                 // of its slot
    const uint8_t *lag_elements[GD_LAG_MAX]; // of the known lags' slots, NULL for the others
    const double *lag_norms[GD_LAG_MAX];     // ... and their groups' squared norms
    bool counts_log2;                        // it has histograms
};

static struct gd_chunk_record *record_of(const struct gd_analysis *analysis, uint64_t chunk) {
    return (struct gd_chunk_record *)(void *)(analysis->records + chunk * analysis->record_bytes);
}

static uint64_t chunks_of(const struct gd_group *group) {
    return (group->numel + GD_CHUNK_ELEMS - 1) / GD_CHUNK_ELEMS;
}

static void place_chunks(struct gd_analysis *analysis) {
    struct chunk_place *chunk = analysis->chunks;
    struct group_place place = {0};

    for (uint32_t i = 0; i < analysis->open_run->n_groups; i++) {
        uint64_t numel = analysis->open_run->groups[i].numel;
        analysis->groups[i] = place;
        for (uint64_t start = 0; start < numel; start += GD_CHUNK_ELEMS) {
            uint64_t left = numel - start;
            *chunk++ = (struct chunk_place){start, left < GD_CHUNK_ELEMS ? (uint32_t)left : GD_CHUNK_ELEMS, i};
        }
        place.slot_offset += numel;
        place.state_offset += gd_layout_state_elems(numel);
    }
}

static uint64_t count_chunks(const struct gd_open_run *open_run) {
    uint64_t n_chunks = 0;
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        n_chunks += chunks_of(&open_run->groups[i]);
    return n_chunks;
}

uint64_t gd_analysis_bytes(const struct gd_open_run *open_run) {
    const struct gd_analysis *analysis = NULL;
    uint64_t chunk_bytes = sizeof(*analysis->chunks) + gd_chunk_record_bytes(open_run->max_lag) +
                           open_run->n_shadows * sizeof(*analysis->shadow_sums);
    return sizeof(*analysis) + open_run->n_groups * sizeof(*analysis->groups) + count_chunks(open_run) * chunk_bytes +
           (1 + open_run->n_shadows) * gd_adam_track_bytes(open_run) +
           ((uint64_t)open_run->series.n_series + 1) * sizeof(*analysis->series_sums);
}

int gd_analysis_new(const struct gd_open_run *open_run, const struct gd_memory *memory,
                    const struct gd_kernels *kernels, struct gd_analysis **ret_analysis) {
    assert(open_run->n_groups > 0);
    struct gd_analysis *analysis = calloc(1, sizeof(*analysis));
    if (!analysis)
        return -ENOMEM;
    *analysis = (struct gd_analysis){
        .open_run = open_run,
        .memory = memory,
        .kernels = kernels,
        .n_chunks = count_chunks(open_run),
        .record_bytes = gd_chunk_record_bytes(open_run->max_lag),
    };

    analysis->groups = calloc(open_run->n_groups, sizeof(*analysis->groups));
    analysis->chunks = calloc(analysis->n_chunks, sizeof(*analysis->chunks));
    analysis->records = calloc(analysis->n_chunks, analysis->record_bytes);
    analysis->series_sums = calloc((size_t)open_run->series.n_series + 1, sizeof(*analysis->series_sums));
    if (open_run->n_shadows > 0)
        analysis->shadow_sums = calloc(open_run->n_shadows * analysis->n_chunks, sizeof(*analysis->shadow_sums));
    bool made = analysis->groups && analysis->chunks && analysis->records && analysis->series_sums &&
                (open_run->n_shadows == 0 || analysis->shadow_sums);
    for (uint32_t rule = 0; made && rule <= open_run->n_shadows; rule++)
        made = gd_adam_track_init(&analysis->tracks[rule], rule, open_run, memory) == 0;
    if (!made) {
        gd_analysis_free(analysis);
        return -ENOMEM;
    }
    place_chunks(analysis);
    *ret_analysis = analysis;
    return 0;
}

void gd_analysis_free(struct gd_analysis *analysis) {
    if (!analysis)
        return;
    for (uint32_t rule = 0; rule < GD_RULES_MAX; rule++)
        gd_adam_track_deinit(&analysis->tracks[rule]);
    free(analysis->shadow_sums);
    free(analysis->groups);
    free(analysis->chunks);
    free(analysis->records);
    free(analysis->series_sums);
    free(analysis);
}

void gd_analysis_set_progress(struct gd_analysis *analysis, _Atomic uint64_t *progress) {
    analysis->progress = progress;
}

uint32_t gd_analysis_parts(const struct gd_analysis *analysis, uint32_t parts_max) {
    uint64_t parts = analysis->open_run->elements / PART_ELEMS_MIN;
    if (parts < 1)
        return 1;
    return parts < parts_max ? (uint32_t)parts : parts_max;
}

static void take_rates(struct gd_analysis *analysis) {
    const struct gd_submission *snapshot = analysis->input->snapshot;
    struct gd_adam_rates *rates = gd_run_state_rates(analysis->input->state, analysis->open_run->n_groups);

    for (uint32_t i = 0; i < snapshot->n_rates; i++) {
        const struct gd_adam_rates *given = &snapshot->rates[i];
        rates[i].learning_rate = given->learning_rate;
        if (!isnan(given->beta2))
            rates[i].beta2 = given->beta2;
        if (!isnan(given->eps))
            rates[i].eps = given->eps;
    }
}

static void find_history(struct gd_analysis *analysis) {
    const struct gd_analysis_input *input = analysis->input;

    analysis->elements = gd_memory_slot(analysis->memory, input->snapshot->slot);
    for (uint32_t i = 0; i < analysis->open_run->max_lag; i++) {
        bool known = input->known_lags >> i & 1;
        analysis->lag_elements[i] = known ? gd_memory_slot(analysis->memory, input->lag_slot[i]) : NULL;
        analysis->lag_norms[i] =
            known ? gd_memory_group_norms(analysis->memory, input->lag_slot[i], analysis->open_run->n_groups) : NULL;
    }
}

void gd_analysis_begin(struct gd_analysis *analysis, const struct gd_analysis_input *input) {
    analysis->input = input;
    analysis->counts_log2 = gd_schedule_shows(input->state->snapshots + 1);
    if (analysis->counts_log2)
        gd_log2_counts_clear(&analysis->log2);
    find_history(analysis);
    if (gd_open_run_starts_state(analysis->open_run) && input->state->snapshots == 0)
        gd_adam_track_start(&analysis->tracks[0], input->state, input->snapshot);
    take_rates(analysis);
    for (uint32_t rule = 0; rule <= analysis->open_run->n_shadows; rule++)
        gd_adam_track_begin(&analysis->tracks[rule], input->state, input->snapshot);
}

void gd_analysis_begin_start(struct gd_analysis *analysis, const struct gd_analysis_input *input) {
    analysis->input = input;
}

static void start_chunk(struct gd_analysis *analysis, uint64_t index, struct gd_log2_tally *tally) {
    (void)tally;
    const struct chunk_place *place = &analysis->chunks[index];
    const struct group_place *group = &analysis->groups[place->group];

    gd_adam_track_start_chunk(&analysis->tracks[0], place->group, analysis->input->snapshot->optimizer_step,
                              group->slot_offset + place->start, group->state_offset + place->start, place->elems);
}

static void point_at_history(const struct gd_analysis *analysis, const struct chunk_place *place, uint64_t offset_bytes,
                             struct gd_chunk *chunk) {
    chunk->lags = analysis->open_run->max_lag;
    for (uint32_t i = 0; i < chunk->lags; i++)
        if (analysis->lag_elements[i] && analysis->lag_norms[i][place->group] >= 0.0)
            chunk->history[i] = analysis->lag_elements[i] + offset_bytes;
}

// `chunk` has the gradient and no history.
static void run_shadow_chunk(struct gd_analysis *analysis, uint32_t shadow, uint64_t index, struct gd_chunk chunk) {
    const struct gd_adam_track *track = &analysis->tracks[1 + shadow];
    const struct chunk_place *place = &analysis->chunks[index];
    struct gd_step_sums sums;
    if (!track->has_second_moment)
        return;
    gd_adam_track_point(track, place->group, analysis->groups[place->group].state_offset + place->start, &chunk);
    analysis->kernels->analyse(&chunk, &sums);
    analysis->shadow_sums[shadow * analysis->n_chunks + index] = (struct shadow_sums){
        .A = sums.A,
        .B = sums.B,
        .C = sums.C,
        .D = sums.D,
        .relative_square = sums.relative_square,
        .step_size_min = sums.step_size_min,
    };
}

// `tally` NULL: nothing is counted.
static void run_chunk(struct gd_analysis *analysis, uint64_t index, struct gd_log2_tally *tally) {
    const struct gd_submission *snapshot = analysis->input->snapshot;
    const struct chunk_place *place = &analysis->chunks[index];
    if (!gd_submission_has_group(snapshot, place->group))
        return;

    enum gd_element_type type = analysis->open_run->element_type;
    const struct group_place *group = &analysis->groups[place->group];
    uint64_t offset_bytes = (group->slot_offset + place->start) * gd_element_bytes(type);
    struct gd_chunk chunk = {
        .elems = place->elems,
        .type = type,
        .gradient = analysis->elements + offset_bytes,
    };
    for (uint32_t shadow = 0; shadow < analysis->open_run->n_shadows; shadow++)
        run_shadow_chunk(analysis, shadow, index, chunk);
    point_at_history(analysis, place, offset_bytes, &chunk);
    if (analysis->tracks[0].has_second_moment)
        gd_adam_track_point(&analysis->tracks[0], place->group, group->state_offset + place->start, &chunk);
    struct gd_step_sums sums;
    analysis->kernels->analyse(&chunk, &sums);
    gd_chunk_record_keep(record_of(analysis, index), &sums, analysis->open_run->max_lag);
    if (tally)
        gd_log2_tally_add_chunk(tally, &chunk, analysis->open_run->groups[place->group].numel);
}

// The first chunk of a part: parts hold about equal numbers of elements.
static uint64_t first_chunk(const struct gd_analysis *analysis, uint32_t part, uint32_t parts) {
    uint64_t wanted = analysis->open_run->elements / parts * part;
    uint64_t low = 0, high = analysis->n_chunks;

    if (part == parts)
        return analysis->n_chunks;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct chunk_place *place = &analysis->chunks[middle];
        if (analysis->groups[place->group].slot_offset + place->start < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void gd_analysis_run(struct gd_analysis *analysis, uint32_t part, uint32_t parts) {
    bool starts = analysis->input->snapshot->kind == GD_SUBMISSION_START;
    void (*chunk)(struct gd_analysis *, uint64_t, struct gd_log2_tally *) = starts ? start_chunk : run_chunk;
    bool counts = !starts && analysis->counts_log2;
    struct gd_log2_tally tally;
    if (counts)
        memset(&tally, 0, sizeof(tally));
    uint64_t end = first_chunk(analysis, part + 1, parts), untold_elems = 0;
    for (uint64_t i = first_chunk(analysis, part, parts); i < end; i++) {
        gd_fault_enter_kernel();
        chunk(analysis, i, counts ? &tally : NULL);
        gd_fault_leave_kernel();
        gd_fault_reach(GD_FAULT_KERNEL_CHUNK);
        untold_elems += analysis->chunks[i].elems;
        if (untold_elems < GD_CHUNK_ELEMS)
            continue;
        gd_progress_tell(analysis->progress);
        untold_elems = 0;
    }
    if (counts)
        gd_log2_counts_merge(&analysis->log2, &tally);
}

// What only the fold over groups can know: which norms belong to which lag.
static void complete_group(struct gd_analysis *analysis, uint32_t group, struct gd_step_sums *sums) {
    for (uint32_t i = 0; i < analysis->open_run->max_lag; i++) {
        double past = analysis->lag_norms[i] ? analysis->lag_norms[i][group] : ABSENT;
        if (past >= 0.0) {
            sums->squared_norm_now[i] = sums->squared_norm;
            sums->squared_norm_past[i] = past;
        }
    }
    if (sums->non_finite > 0)
        sums->first_non_finite_group = group;
    gd_adam_track_end_group(&analysis->tracks[0], group, sums);
}

// Where the rule keeps no second moment, a group's coordinates share one effective step.
static void count_common_step_size(struct gd_analysis *analysis, uint32_t group, const struct gd_step_sums *sums) {
    const struct gd_adam_track *track = &analysis->tracks[0];
    if (analysis->input->snapshot->applied && !track->has_second_moment && track->step.measured)
        gd_log2_counts_add(&analysis->log2, GD_LOG2_STEP_SIZE, (float)track->group_steps[group].numerator,
                           sums->active);
}

// A group's sums under a shadow: the gradient's own are `own`'s, the rule's come from its chunks, up to `end`.
static void fold_shadow_group(struct gd_analysis *analysis, uint32_t shadow, uint32_t group,
                              const struct gd_step_sums *own, uint64_t end, struct gd_step_sums *ret_total) {
    struct gd_adam_track *track = &analysis->tracks[1 + shadow];
    struct gd_step_sums sums;

    gd_step_sums_init_lags(&sums, 0);
    sums.elements = own->elements;
    sums.active = own->active;
    sums.squared_norm = own->squared_norm;
    for (uint64_t i = end - chunks_of(&analysis->open_run->groups[group]); track->has_second_moment && i < end; i++) {
        const struct shadow_sums *part = &analysis->shadow_sums[shadow * analysis->n_chunks + i];
        sums.A += part->A;
        sums.B += part->B;
        sums.C += part->C;
        sums.D += part->D;
        sums.relative_square += part->relative_square;
        if (part->step_size_min < sums.step_size_min)
            sums.step_size_min = part->step_size_min;
    }
    gd_adam_track_end_group(track, group, &sums);
    gd_step_sums_merge(ret_total, &sums, 0);
}

// Counts a group's steps of nothing but zeros, and looks for the first that has had enough of them. `sums` NULL: it is
// absent, which does not count; what it had, it still has.
static void watch_zeros(const struct gd_analysis *analysis, uint32_t group, const struct gd_step_sums *sums,
                        struct gd_analysis_result *result) {
    uint32_t *steps = &gd_run_state_groups(analysis->input->state)[group].zero_steps;
    if (sums)
        gd_alerts_count_zeros(sums, steps);
    if (*steps < analysis->open_run->thresholds.zero_group_steps || result->zero_group != UINT32_MAX)
        return;
    result->zero_group = group;
    result->zero_group_steps = *steps;
}

void gd_analysis_end(struct gd_analysis *analysis, struct gd_analysis_result *ret_result) {
    const struct gd_open_run *open_run = analysis->open_run;
    const struct gd_submission *snapshot = analysis->input->snapshot;
    double *norms = gd_memory_group_norms(analysis->memory, snapshot->slot, open_run->n_groups);
    uint64_t chunk = 0;

    *ret_result = (struct gd_analysis_result){
        .step = analysis->tracks[0].step,
        .zero_group = UINT32_MAX,
        .series = analysis->series_sums,
        .log2 = analysis->counts_log2 ? &analysis->log2 : NULL,
    };
    gd_step_sums_init(&ret_result->sums);
    for (uint32_t shadow = 0; shadow < open_run->n_shadows; shadow++) {
        ret_result->shadow_steps[shadow] = analysis->tracks[1 + shadow].step;
        gd_step_sums_init(&ret_result->shadow_sums[shadow]);
    }
    for (uint32_t i = 0; i < open_run->series.n_series; i++)
        gd_step_sums_init(&analysis->series_sums[i]);
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        uint64_t end = chunk + chunks_of(&open_run->groups[i]);
        if (!gd_submission_has_group(snapshot, i)) {
            norms[i] = ABSENT;
            chunk = end;
            watch_zeros(analysis, i, NULL, ret_result);
            continue;
        }
        struct gd_step_sums sums;
        gd_step_sums_init_lags(&sums, open_run->max_lag);
        for (; chunk < end; chunk++)
            gd_chunk_record_add(record_of(analysis, chunk), analysis->chunks[chunk].elems, open_run->max_lag, &sums);
        norms[i] = sums.squared_norm;
        watch_zeros(analysis, i, &sums, ret_result);
        complete_group(analysis, i, &sums);
        if (analysis->counts_log2)
            count_common_step_size(analysis, i, &sums);
        gd_step_sums_merge(&ret_result->sums, &sums, open_run->max_lag);
        for (uint32_t shadow = 0; shadow < open_run->n_shadows; shadow++)
            fold_shadow_group(analysis, shadow, i, &sums, end, &ret_result->shadow_sums[shadow]);
        uint32_t series = gd_group_series_of(&open_run->series, i);
        if (series != GD_NO_SERIES)
            gd_step_sums_merge(&analysis->series_sums[series], &sums, open_run->max_lag);
    }
}
