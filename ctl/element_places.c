#include "element_places.h"

#include <errno.h>

static const enum gd_recorded_stream side_streams[GD_SIDES] = {
    [GD_SIDE_PROBE_GRADIENT] = GD_RECORDED_PROBE_GRADIENT,
    [GD_SIDE_PARAMETERS] = GD_RECORDED_PARAMETERS,
    [GD_SIDE_OUTPUTS] = GD_RECORDED_OUTPUTS,
};

static const enum gd_recorded_stream start_streams[GD_STARTS] = {
    [GD_START_SECOND_MOMENT] = GD_RECORDED_START_SECOND_MOMENT,
    [GD_START_SECOND_MOMENT_MAX] = GD_RECORDED_START_SECOND_MOMENT_MAX,
    [GD_START_PARAMETERS] = GD_RECORDED_START_PARAMETERS,
    [GD_START_OUTPUTS] = GD_RECORDED_START_OUTPUTS,
};

static int place_side(const struct gd_open_run *open_run, const struct gd_layout *layout, enum gd_side side,
                      uint32_t slot, enum gd_recorded_stream stream, struct gd_element_place *ret_place) {
    const struct gd_side_layout *from = &layout->sides[side];
    if (slot >= from->slots) // also where the run has no such stream
        return -EINVAL;
    *ret_place = (struct gd_element_place){
        .stream = stream,
        .type = open_run->sides[side].element_type,
        .offset = from->slots_offset + slot * from->slot_stride_bytes,
        .bytes = open_run->sides[side].elements * gd_element_bytes(open_run->sides[side].element_type),
    };
    return 1;
}

static int place_start(const struct gd_open_run *open_run, const struct gd_layout *layout,
                       const struct gd_submission *start, struct gd_element_place *ret_place) {
    if (start->slot != 0)
        return -EINVAL;
    if (start->start >= GD_STATE_ARRAYS_MAX)
        return place_side(open_run, layout, gd_start_side(start->start), 0, start_streams[start->start], ret_place);
    if (start->start >= layout->start_arrays)
        return -EINVAL;
    *ret_place = (struct gd_element_place){
        .stream = start_streams[start->start],
        .type = GD_F32,
        .offset = layout->second_moment_offset[0][1][start->start],
        .bytes = open_run->elements * sizeof(float),
    };
    return 1;
}

static int place_snapshot(const struct gd_open_run *open_run, const struct gd_layout *layout,
                          const struct gd_submission *snapshot, struct gd_element_place *ret_places) {
    int n = 0;
    if (snapshot->slot >= layout->slots)
        return -EINVAL;
    ret_places[n++] = (struct gd_element_place){
        .stream = GD_RECORDED_GRADIENT,
        .type = open_run->element_type,
        .offset = layout->slots_offset + snapshot->slot * layout->slot_stride_bytes,
        .bytes = open_run->elements * gd_element_bytes(open_run->element_type),
    };
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!(snapshot->sides >> side & 1))
            continue;
        if (place_side(open_run, layout, side, snapshot->side_slot[side], side_streams[side], &ret_places[n]) < 0)
            return -EINVAL;
        n++;
    }
    return n;
}

int gd_element_places(const struct gd_open_run *open_run, const struct gd_layout *layout,
                      const struct gd_submission *submission,
                      struct gd_element_place ret_places[GD_ELEMENT_PLACES_MAX]) {
    if (submission->delivery != GD_IN_SLOT)
        return 0;
    if (submission->kind == GD_SUBMISSION_START)
        return place_start(open_run, layout, submission, ret_places);
    if (submission->kind == GD_SUBMISSION_SNAPSHOT)
        return place_snapshot(open_run, layout, submission, ret_places);
    return 0;
}
