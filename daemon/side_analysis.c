#include "side_analysis.h"

#include <errno.h>
#include <stdlib.h>

#include "chunk_record.h"
#include "fault.h"

struct gd_side_analysis {
    const struct gd_open_run *open_run;
    const struct gd_memory *memory;
    const struct gd_kernels *kernels;
    uint8_t *probe_records; // of the chunks, each of ...
    size_t probe_record_bytes;
    struct gd_difference_sums *differences[GD_SIDES]; // of the chunks
    _Atomic uint64_t *progress;                       // NULL: not told
};

static uint64_t chunks_of(const struct gd_open_run *open_run, enum gd_side side) {
    return (open_run->sides[side].elements + GD_CHUNK_ELEMS - 1) / GD_CHUNK_ELEMS;
}

static uint64_t chunk_bytes(const struct gd_open_run *open_run, enum gd_side side) {
    return side == GD_SIDE_PROBE_GRADIENT ? gd_chunk_record_bytes(open_run->max_lag)
                                          : sizeof(struct gd_difference_sums);
}

uint64_t gd_side_analysis_bytes(const struct gd_open_run *open_run) {
    uint64_t bytes = 0;
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        bytes += chunks_of(open_run, side) * chunk_bytes(open_run, side);
    return bytes > 0 ? sizeof(struct gd_side_analysis) + bytes : 0;
}

int gd_side_analysis_new(const struct gd_open_run *open_run, const struct gd_memory *memory,
                         const struct gd_kernels *kernels, struct gd_side_analysis **ret_analysis) {
    struct gd_side_analysis *analysis = calloc(1, sizeof(*analysis));
    if (!analysis)
        return -ENOMEM;
    *analysis = (struct gd_side_analysis){
        .open_run = open_run,
        .memory = memory,
        .kernels = kernels,
        .probe_record_bytes = gd_chunk_record_bytes(open_run->max_lag),
    };
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!gd_open_run_has_side(open_run, side))
            continue;
        void *chunks = calloc(chunks_of(open_run, side), chunk_bytes(open_run, side));
        if (!chunks) {
            gd_side_analysis_free(analysis);
            return -ENOMEM;
        }
        if (side == GD_SIDE_PROBE_GRADIENT)
            analysis->probe_records = chunks;
        else
            analysis->differences[side] = chunks;
    }
    *ret_analysis = analysis;
    return 0;
}

void gd_side_analysis_free(struct gd_side_analysis *analysis) {
    if (!analysis)
        return;
    free(analysis->probe_records);
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        free(analysis->differences[side]);
    free(analysis);
}

void gd_side_analysis_set_progress(struct gd_side_analysis *analysis, _Atomic uint64_t *progress) {
    analysis->progress = progress;
}

static struct gd_chunk_record *probe_record(const struct gd_side_analysis *analysis, uint64_t chunk) {
    return (struct gd_chunk_record *)(void *)(analysis->probe_records + chunk * analysis->probe_record_bytes);
}

static uint32_t elems_of(const struct gd_open_run *open_run, enum gd_side side, uint64_t chunk) {
    uint64_t left = open_run->sides[side].elements - chunk * GD_CHUNK_ELEMS;
    return left < GD_CHUNK_ELEMS ? (uint32_t)left : GD_CHUNK_ELEMS;
}

// A chunk's elements in a slot.
static const void *elements_of(const struct gd_side_analysis *analysis, enum gd_side side, uint32_t slot,
                               uint64_t chunk) {
    const uint8_t *elements = gd_memory_side_slot(analysis->memory, side, slot);
    return elements + chunk * GD_CHUNK_ELEMS * gd_element_bytes(analysis->open_run->sides[side].element_type);
}

static void run_probe_chunk(const struct gd_side_analysis *analysis, const struct gd_side_input *input,
                            uint64_t index) {
    const enum gd_side probe = GD_SIDE_PROBE_GRADIENT;
    struct gd_step_sums sums;
    struct gd_chunk chunk = {
        .elems = elems_of(analysis->open_run, probe, index),
        .type = analysis->open_run->sides[probe].element_type,
        .gradient = elements_of(analysis, probe, input->slot[probe], index),
        .lags = analysis->open_run->max_lag,
    };
    for (uint32_t i = 0; i < chunk.lags; i++)
        if (input->known_lags[probe] >> i & 1)
            chunk.history[i] = elements_of(analysis, probe, input->lag_slot[probe][i], index);
    analysis->kernels->analyse(&chunk, &sums);
    gd_chunk_record_keep(probe_record(analysis, index), &sums, chunk.lags);
}

static void run_difference_chunk(const struct gd_side_analysis *analysis, const struct gd_side_input *input,
                                 enum gd_side side, uint64_t index) {
    const enum gd_side probe = GD_SIDE_PROBE_GRADIENT;
    struct gd_difference_chunk chunk = {
        .elems = elems_of(analysis->open_run, side, index),
        .type = analysis->open_run->sides[side].element_type,
        .now = elements_of(analysis, side, input->slot[side], index),
    };
    if (input->known_lags[side] & 1)
        chunk.before = elements_of(analysis, side, input->lag_slot[side][0], index);
    if (input->start_slot[side] != UINT32_MAX)
        chunk.start = elements_of(analysis, side, input->start_slot[side], index);
    if (side == GD_SIDE_PARAMETERS && input->has_secant) {
        chunk.other_type = analysis->open_run->sides[probe].element_type;
        chunk.other_now = elements_of(analysis, probe, input->slot[probe], index);
        chunk.other_before = elements_of(analysis, probe, input->lag_slot[probe][0], index);
    }
    analysis->kernels->differences(&chunk, &analysis->differences[side][index]);
}

void gd_side_analysis_run(struct gd_side_analysis *analysis, const struct gd_side_input *input, uint32_t part,
                          uint32_t parts) {
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!(input->present >> side & 1))
            continue;
        uint64_t chunks = chunks_of(analysis->open_run, side);
        for (uint64_t i = chunks * part / parts; i < chunks * (part + 1) / parts; i++) {
            gd_fault_enter_kernel();
            if (side == GD_SIDE_PROBE_GRADIENT)
                run_probe_chunk(analysis, input, i);
            else
                run_difference_chunk(analysis, input, side, i);
            gd_fault_leave_kernel();
            gd_progress_tell(analysis->progress);
        }
    }
}

static void fold_probe(const struct gd_side_analysis *analysis, const struct gd_side_input *input,
                       struct gd_step_sums *ret_sums) {
    uint32_t max_lag = analysis->open_run->max_lag;
    gd_step_sums_init(ret_sums);
    for (uint64_t i = 0; i < chunks_of(analysis->open_run, GD_SIDE_PROBE_GRADIENT); i++)
        gd_chunk_record_add(probe_record(analysis, i), elems_of(analysis->open_run, GD_SIDE_PROBE_GRADIENT, i), max_lag,
                            ret_sums);
    for (uint32_t i = 0; i < max_lag; i++) {
        if (!(input->known_lags[GD_SIDE_PROBE_GRADIENT] >> i & 1))
            continue;
        ret_sums->squared_norm_now[i] = ret_sums->squared_norm;
        ret_sums->squared_norm_past[i] = input->probe_squared_norm_past[i];
    }
}

static void fold_differences(const struct gd_side_analysis *analysis, enum gd_side side,
                             struct gd_difference_sums *ret_sums) {
    for (uint64_t i = 0; i < chunks_of(analysis->open_run, side); i++) {
        const struct gd_difference_sums *chunk = &analysis->differences[side][i];
        ret_sums->squared_norm += chunk->squared_norm;
        ret_sums->squared_step += chunk->squared_step;
        ret_sums->squared_from_start += chunk->squared_from_start;
        ret_sums->other_squared_step += chunk->other_squared_step;
        ret_sums->product += chunk->product;
    }
}

void gd_side_analysis_end(const struct gd_side_analysis *analysis, const struct gd_side_input *input,
                          struct gd_side_sums *ret_sums) {
    *ret_sums = (struct gd_side_sums){0};
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!(input->present >> side & 1))
            continue;
        if (side == GD_SIDE_PROBE_GRADIENT)
            fold_probe(analysis, input, &ret_sums->probe);
        else
            fold_differences(analysis, side, &ret_sums->differences[side]);
    }
}
