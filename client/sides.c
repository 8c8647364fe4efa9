// The streams beside the gradient: slots of their own, filled by the step that brings them.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const Gradientd__StreamKind kinds[CLIENT_SIDES] = {
    [CLIENT_PROBE_GRADIENTS] = GRADIENTD__STREAM_KIND__PROBE_GRADIENT,
    [CLIENT_PARAMETERS] = GRADIENTD__STREAM_KIND__PARAMETERS,
    [CLIENT_OUTPUTS] = GRADIENTD__STREAM_KIND__OUTPUTS,
};

Gradientd__StreamKind client_side_kind(enum client_side side) {
    return kinds[side];
}

void client_sides_init(struct gradientd_run *run, const struct gradientd_options *options) {
    const struct gradientd_stream_options *given[CLIENT_SIDES] = {&options->probe_gradients, &options->parameters,
                                                                  &options->outputs};
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        if (given[side]->stride == 0)
            continue;
        run->sides[side].elements =
            side == CLIENT_OUTPUTS ? options->output_examples * options->outputs_per_example : run->elements;
        run->sides[side].vector = client_vector_of(given[side]->element_type);
    }
}

int client_sides_map(struct gradientd_run *run, const Gradientd__Layout *layout) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        const Gradientd__StreamLayout *stream = client_find_stream(layout, kinds[side]);
        struct client_side_stream *to = &run->sides[side];
        if (!stream)
            continue;
        to->slots = (struct client_slots){
            .base = run->memory + stream->slots_offset,
            .stride_bytes = stream->slot_stride_bytes,
            .count = stream->slots,
            .words = (void *)(run->memory + stream->slot_words_offset),
            .used_sequence = calloc(stream->slots, sizeof(uint64_t)),
        };
        if (!to->slots.used_sequence)
            return -ENOMEM;
        to->vector.streams = client_copy_streams(to->slots.count * to->slots.stride_bytes);
    }
    return 0;
}

void client_sides_move(struct gradientd_run *to, struct gradientd_run *from) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        to->sides[side].slots = from->sides[side].slots;
        to->sides[side].vector.streams = from->sides[side].vector.streams;
        from->sides[side].slots = (struct client_slots){0};
    }
}

void client_sides_unmap(struct gradientd_run *run) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        free(run->sides[side].slots.used_sequence);
        run->sides[side].slots = (struct client_slots){0};
    }
}

void client_sides_of_step(const struct gradientd_step *step,
                          struct client_side_elements ret_sides[static CLIENT_SIDES]) {
    memset(ret_sides, 0, CLIENT_SIDES * sizeof(*ret_sides));
    ret_sides[CLIENT_PROBE_GRADIENTS].slices = step->probe_gradients;
    ret_sides[CLIENT_PARAMETERS].slices = step->parameters;
    ret_sides[CLIENT_OUTPUTS].all = step->outputs;
    for (enum client_side side = 0; side < CLIENT_SIDES; side++)
        ret_sides[side].is_there = ret_sides[side].slices || ret_sides[side].all;
}

int64_t client_find_slot(const struct client_slots *slots) {
    for (uint32_t i = 0; i < slots->count; i++)
        if (atomic_load_explicit(&slots->words[i], memory_order_acquire) >= slots->used_sequence[i])
            return i;
    return -1;
}

bool client_sides_find_slots(const struct gradientd_run *run, struct client_side_elements *sides) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        if (!sides[side].is_there)
            continue;
        int64_t slot = client_find_slot(&run->sides[side].slots);
        if (slot < 0)
            return false;
        sides[side].slot = (uint32_t)slot;
    }
    return true;
}

void client_sides_copy(const struct gradientd_run *run, const struct client_side_elements *sides) {
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        const struct client_side_stream *stream = &run->sides[side];
        if (!sides[side].is_there)
            continue;
        uint8_t *to = stream->slots.base + sides[side].slot * stream->slots.stride_bytes;
        if (sides[side].slices)
            client_copy_elements(run, &stream->vector, to, sides[side].slices, 0, stream->elements);
        else
            client_copy_vector(&stream->vector, to, sides[side].all, stream->elements);
    }
}
