#include "layout.h"

#include "alert_text.h"
#include "dashboard.h"
#include "event.h"
#include "event_path.h"
#include "fault.h"
#include "noise_records.h"
#include "run_state.h"
#include "subspace_records.h"
#include "tags.h"

enum {
    PAGE_BYTES = 4096,
    LINE_BYTES = 64, // words that two processes touch lie on lines of their own
    HEADER_BYTES = 512,
    OUTBOX_BYTES_MIN = 1 << 20,
    OUTBOX_STEPS = 4, // a burst of the largest steps fits while the file system is slow
};

static uint64_t align(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

// Hands out `bytes` at the next multiple of `alignment`.
static uint64_t place(uint64_t *end, uint64_t bytes, uint64_t alignment) {
    uint64_t offset = align(*end, alignment);
    *end = offset + bytes;
    return offset;
}

static uint64_t tag_bytes_max(const struct gd_tag_text *text) {
    return gd_event_scalar_bytes_max(sizeof(text->name), __builtin_strlen(text->description));
}

// Every tag of every series, with its description.
static uint64_t series_records_max(const struct gd_open_run *open_run) {
    uint64_t bytes = 0;
    for (enum gd_group_quantity quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++) {
        struct gd_tag_text text;
        if (!(gd_open_run_quantities(open_run) >> quantity & 1))
            continue;
        gd_group_tag_describe(quantity, &text);
        for (uint32_t i = 0; i < open_run->series.n_series; i++)
            bytes += gd_event_scalar_bytes_max(__builtin_strlen(text.name) + __builtin_strlen(open_run->series.name[i]),
                                               __builtin_strlen(text.description));
    }
    return bytes;
}

static uint64_t side_records_max(const struct gd_open_run *open_run) {
    uint64_t bytes = 0;
    if (gd_open_run_sides_before(open_run, GD_SIDES) == 0)
        return 0;
    for (enum gd_side_tag tag = 0; tag < GD_SIDE_TAG_COUNT; tag++) {
        struct gd_tag_text text;
        gd_side_tag_describe(tag, gd_open_run_measures_from(open_run, tag), &text);
        bytes += tag_bytes_max(&text);
    }
    return bytes;
}

// Every own tag with its description and every user tag with the longest name, each in an Event of its own, and what
// is shown beside them, though never all of it in one step.
static uint64_t step_records_max(const struct gd_open_run *open_run) {
    uint64_t bytes = GRADIENTD_USER_TAGS_MAX * gd_event_scalar_bytes_max(GRADIENTD_NAME_BYTES_MAX, 0);
    for (int tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text;
        gd_tag_describe((enum gd_tag)tag, &text);
        bytes += tag_bytes_max(&text);
        for (uint32_t shadow = 0; shadow < open_run->n_shadows && gd_tag_is_adam((enum gd_tag)tag); shadow++) {
            gd_tag_describe_shadow(open_run->shadows[shadow].rule, (enum gd_tag)tag, &text);
            bytes += tag_bytes_max(&text);
        }
    }
    return bytes + series_records_max(open_run) + side_records_max(open_run) + gd_alert_records_max() +
           gd_subspace_records_max(open_run) + gd_noise_records_max() + gd_dashboard_bytes_max(open_run);
}

static uint64_t side_slots(const struct gd_open_run *open_run, enum gd_side side) {
    if (!gd_open_run_has_side(open_run, side))
        return 0;
    return open_run->sides[side].lags + 1 + open_run->inflight + gd_side_keeps_start(side);
}

static void place_second_moments(struct gd_layout *layout, const struct gd_open_run *open_run, uint64_t *end) {
    uint64_t elems = 0;
    for (uint32_t i = 0; i < open_run->n_groups; i++)
        elems += gd_layout_state_elems(open_run->groups[i].numel);
    layout->second_moment_bytes = elems * sizeof(float);
    for (uint32_t rule = 0; rule <= open_run->n_shadows; rule++) {
        layout->state_arrays[rule] = gd_adam_state_arrays(gd_open_run_rule(open_run, rule));
        for (uint32_t half = 0; half < 2; half++)
            for (uint32_t array = 0; array < layout->state_arrays[rule]; array++)
                layout->second_moment_offset[rule][half][array] = place(end, layout->second_moment_bytes, PAGE_BYTES);
    }
    layout->start_arrays = gd_open_run_starts_state(open_run) ? layout->state_arrays[0] : 0;
}

void gd_layout_init(struct gd_layout *layout, const struct gd_open_run *open_run) {
    uint64_t end = 0;

    *layout = (struct gd_layout){
        .slots = open_run->max_lag + 1 + open_run->inflight,
        .state_bytes = gd_run_state_bytes(open_run),
        .step_records_max = step_records_max(open_run),
        .slot_stride_bytes = align(open_run->elements * gd_element_bytes(open_run->element_type), PAGE_BYTES),
    };
    for (int i = 0; i < 2; i++)
        layout->header_offset[i] = place(&end, HEADER_BYTES, LINE_BYTES);
    layout->waiting_offset = place(&end, sizeof(uint32_t), LINE_BYTES);
    layout->notices_offset = place(&end, sizeof(uint32_t), LINE_BYTES);
    layout->commits_offset = place(&end, sizeof(uint64_t), LINE_BYTES);
    layout->written_offset = place(&end, sizeof(uint64_t), LINE_BYTES);
    layout->slot_words_offset = place(&end, layout->slots * sizeof(uint64_t), LINE_BYTES);
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        struct gd_side_layout *to = &layout->sides[side];
        to->slots = side_slots(open_run, side);
        if (to->slots == 0)
            continue;
        to->slot_words_offset = place(&end, to->slots * sizeof(uint64_t), LINE_BYTES);
    }
    for (int i = 0; i < 2; i++)
        layout->state_offset[i] = place(&end, layout->state_bytes, LINE_BYTES);
    layout->user_tags_offset = place(&end, GRADIENTD_USER_TAGS_MAX * (GRADIENTD_NAME_BYTES_MAX + 1), LINE_BYTES);
    layout->event_name_offset = place(&end, GD_EVENT_NAME_BYTES, LINE_BYTES);
    layout->group_norms_offset = place(&end, (uint64_t)layout->slots * open_run->n_groups * sizeof(double), LINE_BYTES);
    layout->slot_sums_bytes = gd_slot_sums_bytes(open_run->max_lag);
    layout->slot_sums_offset = place(&end, layout->slots * layout->slot_sums_bytes, LINE_BYTES);

    uint64_t outbox = OUTBOX_STEPS * layout->step_records_max;
    layout->outbox_bytes = align(outbox > OUTBOX_BYTES_MIN ? outbox : OUTBOX_BYTES_MIN, PAGE_BYTES);
    layout->outbox_offset = place(&end, layout->outbox_bytes, PAGE_BYTES);
    place_second_moments(layout, open_run, &end);
    layout->slots_offset = place(&end, layout->slots * layout->slot_stride_bytes, PAGE_BYTES);
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        const struct gd_side_stream *stream = &open_run->sides[side];
        struct gd_side_layout *to = &layout->sides[side];
        if (to->slots == 0)
            continue;
        to->slot_stride_bytes = align(stream->elements * gd_element_bytes(stream->element_type), PAGE_BYTES);
        to->slots_offset = place(&end, to->slots * to->slot_stride_bytes, PAGE_BYTES);
    }
    layout->version = gd_fault_layout_version(GRADIENTD_LAYOUT_VERSION);
    layout->total_bytes = align(gd_fault_layout_bytes(end), PAGE_BYTES);
}
