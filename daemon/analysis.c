#include "analysis.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "start_vector.h"

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

struct gd_analysis {
    const struct gd_open_run *open_run;
    const struct gd_memory *memory;
    const struct gd_kernels *kernels;
    struct group_place *groups;
    struct chunk_place *chunks;
    uint64_t n_chunks;
    struct gd_step_sums *chunk_sums;
    struct gd_adam_group_step *group_steps;

    // the snapshot under way
    const struct gd_analysis_input *input;
    struct gd_adam_step step;
    double beta2_max;
};

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
    return sizeof(*analysis) + open_run->n_groups * (sizeof(*analysis->groups) + sizeof(*analysis->group_steps)) +
           count_chunks(open_run) * (sizeof(*analysis->chunks) + sizeof(*analysis->chunk_sums));
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
    };

    analysis->groups = calloc(open_run->n_groups, sizeof(*analysis->groups));
    analysis->group_steps = calloc(open_run->n_groups, sizeof(*analysis->group_steps));
    analysis->chunks = calloc(analysis->n_chunks, sizeof(*analysis->chunks));
    analysis->chunk_sums = calloc(analysis->n_chunks, sizeof(*analysis->chunk_sums));
    if (!analysis->groups || !analysis->group_steps || !analysis->chunks || !analysis->chunk_sums) {
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
    free(analysis->groups);
    free(analysis->group_steps);
    free(analysis->chunks);
    free(analysis->chunk_sums);
    free(analysis);
}

uint32_t gd_analysis_parts(const struct gd_analysis *analysis, uint32_t parts_max) {
    uint64_t parts = analysis->open_run->elements / PART_ELEMS_MIN;
    if (parts < 1)
        return 1;
    return parts < parts_max ? (uint32_t)parts : parts_max;
}

// The groups' state of the step before the first: what the start vectors hold.
static void start_groups(struct gd_analysis *analysis) {
    const struct gd_open_run *open_run = analysis->open_run;
    struct gd_run_state *state = analysis->input->state;
    struct gd_group_state *groups = gd_run_state_groups(state);

    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        uint32_t parameter_group = open_run->groups[i].parameter_group;
        struct gd_adam_rates rates = open_run->parameter_groups[parameter_group];
        double stated = open_run->start_learning_rates[parameter_group];
        rates.learning_rate = isnan(stated) ? analysis->input->snapshot->rates[parameter_group].learning_rate : stated;
        gd_adam_start_group(&open_run->adam, &groups[i].adam, state->adam.optimizer_step, &rates);
    }
}

static void take_rates(struct gd_analysis *analysis) {
    const struct gd_submission *snapshot = analysis->input->snapshot;
    struct gd_adam_rates *rates = gd_run_state_rates(analysis->input->state, analysis->open_run->n_groups);

    analysis->beta2_max = 0.0;
    for (uint32_t i = 0; i < snapshot->n_rates; i++) {
        const struct gd_adam_rates *given = &snapshot->rates[i];
        rates[i].learning_rate = given->learning_rate;
        if (!isnan(given->beta2))
            rates[i].beta2 = given->beta2;
        if (!isnan(given->eps))
            rates[i].eps = given->eps;
        if (rates[i].beta2 > analysis->beta2_max)
            analysis->beta2_max = rates[i].beta2;
    }
}

// Every group at its own t = 1: nothing came before that the daemon has not seen.
static bool starts_exact(const struct gd_open_run *open_run, uint64_t optimizer_step) {
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        if (optimizer_step != (uint64_t)open_run->groups[i].step_lag + 1)
            return false;
    return true;
}

static void begin_applied_step(struct gd_analysis *analysis) {
    const struct gd_open_run *open_run = analysis->open_run;
    const struct gd_submission *snapshot = analysis->input->snapshot;
    struct gd_run_state *state = analysis->input->state;
    struct gd_group_state *groups = gd_run_state_groups(state);
    const struct gd_adam_rates *rates = gd_run_state_rates(state, open_run->n_groups);

    bool exact = state->adam.applied == 0 && starts_exact(open_run, snapshot->optimizer_step);
    analysis->step =
        gd_adam_begin_step(&open_run->adam, &state->adam, snapshot->optimizer_step, exact, analysis->beta2_max);
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        if (gd_submission_has_group(snapshot, i))
            analysis->group_steps[i] = gd_adam_step_group(&open_run->adam, &groups[i].adam, &analysis->step,
                                                          &rates[open_run->groups[i].parameter_group]);
        else
            gd_adam_skip_group(&open_run->adam, &groups[i].adam, &analysis->step);
    }
}

void gd_analysis_begin(struct gd_analysis *analysis, const struct gd_analysis_input *input) {
    analysis->input = input;
    if (analysis->open_run->starts && input->state->snapshots == 0)
        start_groups(analysis);
    take_rates(analysis);
    if (input->snapshot->applied)
        begin_applied_step(analysis);
    else
        memset(analysis->group_steps, 0, analysis->open_run->n_groups * sizeof(*analysis->group_steps));
}

void gd_analysis_begin_start(struct gd_analysis *analysis, const struct gd_analysis_input *input) {
    analysis->input = input;
}

// Elements of a group that has no history keep the state of a run's start.
static void start_chunk(struct gd_analysis *analysis, uint64_t index) {
    const struct gd_open_run *open_run = analysis->open_run;
    const struct gd_memory *memory = analysis->memory;
    const struct chunk_place *place = &analysis->chunks[index];
    const struct gd_group *group = &open_run->groups[place->group];
    uint64_t from = analysis->groups[place->group].slot_offset + place->start;
    uint64_t to = analysis->groups[place->group].state_offset + place->start;
    uint64_t t = analysis->input->snapshot->optimizer_step - group->step_lag;
    float *root = gd_memory_second_moment(memory, 0, 0) + to;
    if (t == 0)
        return;

    gd_start_roots(gd_memory_second_moment(memory, 1, 0) + from, (float)open_run->adam.initial_accumulator,
                   place->elems, root);
    if (memory->layout.state_arrays > 1) {
        double beta2 = open_run->parameter_groups[group->parameter_group].beta2;
        gd_start_maxima(gd_memory_second_moment(memory, 1, 1) + from, root,
                        (float)gd_adam_maximum_scale(&open_run->adam, beta2, t), place->elems,
                        gd_memory_second_moment(memory, 0, 1) + to);
    }
}

static const uint8_t *slot_bytes(const struct gd_analysis *analysis, uint32_t slot) {
    return gd_memory_slot(analysis->memory, slot);
}

static void point_at_history(const struct gd_analysis *analysis, const struct chunk_place *place, uint64_t offset_bytes,
                             struct gd_chunk *chunk) {
    const struct gd_analysis_input *input = analysis->input;

    chunk->lags = analysis->open_run->max_lag;
    for (uint32_t i = 0; i < chunk->lags; i++) {
        if (!(input->known_lags >> i & 1))
            continue;
        const double *norms = gd_memory_group_norms(analysis->memory, input->lag_slot[i], analysis->open_run->n_groups);
        if (norms[place->group] >= 0.0)
            chunk->history[i] = slot_bytes(analysis, input->lag_slot[i]) + offset_bytes;
    }
}

static void point_at_second_moment(const struct gd_analysis *analysis, const struct chunk_place *place,
                                   struct gd_chunk *chunk) {
    const struct gd_memory *memory = analysis->memory;
    uint64_t half = gd_run_state_groups(analysis->input->state)[place->group].half % 2;
    uint64_t offset = analysis->groups[place->group].state_offset + place->start;

    chunk->step = &analysis->group_steps[place->group].kernel;
    chunk->root = gd_memory_second_moment(memory, half, 0) + offset;
    chunk->root_next = gd_memory_second_moment(memory, 1 - half, 0) + offset;
    if (memory->layout.state_arrays > 1) {
        chunk->maximum = gd_memory_second_moment(memory, half, 1) + offset;
        chunk->maximum_next = gd_memory_second_moment(memory, 1 - half, 1) + offset;
    }
}

static void run_chunk(struct gd_analysis *analysis, uint64_t index) {
    const struct gd_submission *snapshot = analysis->input->snapshot;
    const struct chunk_place *place = &analysis->chunks[index];
    if (!gd_submission_has_group(snapshot, place->group))
        return;

    enum gd_element_type type = analysis->open_run->element_type;
    uint64_t offset_bytes = (analysis->groups[place->group].slot_offset + place->start) * gd_element_bytes(type);
    struct gd_chunk chunk = {
        .elems = place->elems,
        .type = type,
        .gradient = slot_bytes(analysis, snapshot->slot) + offset_bytes,
    };
    point_at_history(analysis, place, offset_bytes, &chunk);
    if (snapshot->applied && gd_adam_has_second_moment(&analysis->open_run->adam))
        point_at_second_moment(analysis, place, &chunk);
    analysis->kernels->analyse(&chunk, &analysis->chunk_sums[index]);
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
    void (*chunk)(struct gd_analysis *, uint64_t) =
        analysis->input->snapshot->kind == GD_SUBMISSION_START ? start_chunk : run_chunk;
    uint64_t end = first_chunk(analysis, part + 1, parts);
    for (uint64_t i = first_chunk(analysis, part, parts); i < end; i++)
        chunk(analysis, i);
}

// What only the fold over groups can know: which norms belong to which lag.
static void complete_group(const struct gd_analysis *analysis, uint32_t group, struct gd_step_sums *sums) {
    const struct gd_analysis_input *input = analysis->input;

    for (uint32_t i = 0; i < analysis->open_run->max_lag; i++) {
        if (!(input->known_lags >> i & 1))
            continue;
        double past = gd_memory_group_norms(analysis->memory, input->lag_slot[i], analysis->open_run->n_groups)[group];
        if (past >= 0.0) {
            sums->squared_norm_now[i] = sums->squared_norm;
            sums->squared_norm_past[i] = past;
        }
    }
    if (sums->non_finite > 0)
        sums->first_non_finite_group = group;
    gd_adam_complete_sums(&analysis->open_run->adam, &analysis->group_steps[group], sums);
}

void gd_analysis_end(struct gd_analysis *analysis, struct gd_analysis_result *ret_result) {
    const struct gd_open_run *open_run = analysis->open_run;
    const struct gd_submission *snapshot = analysis->input->snapshot;
    struct gd_group_state *groups = gd_run_state_groups(analysis->input->state);
    double *norms = gd_memory_group_norms(analysis->memory, snapshot->slot, open_run->n_groups);
    uint64_t chunk = 0;

    *ret_result = (struct gd_analysis_result){.step = analysis->step};
    gd_step_sums_init(&ret_result->sums);
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        uint64_t end = chunk + chunks_of(&open_run->groups[i]);
        if (!gd_submission_has_group(snapshot, i)) {
            norms[i] = ABSENT;
            chunk = end;
            continue;
        }
        struct gd_step_sums sums;
        gd_step_sums_init(&sums);
        for (; chunk < end; chunk++)
            gd_step_sums_merge(&sums, &analysis->chunk_sums[chunk], open_run->max_lag);
        norms[i] = sums.squared_norm;
        complete_group(analysis, i, &sums);
        gd_step_sums_merge(&ret_result->sums, &sums, open_run->max_lag);
        groups[i].half ^= (uint64_t)(snapshot->applied && gd_adam_has_second_moment(&open_run->adam));
    }
}
