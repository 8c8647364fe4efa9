#include "layout.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dashboard.h"
#include "event.h"
#include "memory.h"
#include "run_state.h"
#include "tags.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { REGIONS_MAX = 14 + 4 * GD_RULES_MAX };

struct region {
    const char *name;
    uint64_t offset, bytes, alignment;
};

// What shapes a layout.
struct shape {
    uint32_t n_groups;
    uint64_t numel; // of each group
    uint32_t n_parameter_groups, max_lag, inflight;
    enum gd_rule rule;
    enum gd_element_type type;
    uint64_t element_bytes;
};

// How many of the other rules follow the run as shadows.
static uint32_t n_shadows;

static const struct shape shapes[] = {
    {1, 1, 1, 1, 1, GD_RULE_SGD, GD_F32, 4},
    {1, 1, 1, 5, 2, GD_RULE_ADAM, GD_F16, 2},
    {2, 9, 1, 5, 2, GD_RULE_OTHER, GD_F32, 4},
    {3, 17, 2, 32, 64, GD_RULE_AMSGRAD, GD_F32, 4},
    {3, 17, 2, 32, 64, GD_RULE_AMSGRAD, GD_BF16, 2},
    {7, 1025, 1, 5, 2, GD_RULE_ADAGRAD, GD_F32, 4},
    {7, 1025, 1, 5, 2, GD_RULE_ADAGRAD, GD_F16, 2},
    {65536, 3, 4096, 32, 64, GD_RULE_AMSGRAD, GD_F32, 4},
    {1, 25000000, 1, 5, 2, GD_RULE_ADAM, GD_F32, 4},
    {1, 25000000, 1, 5, 2, GD_RULE_ADAM, GD_BF16, 2},
    {1, UINT64_C(1) << 40, 1, 32, 64, GD_RULE_AMSGRAD, GD_F32, 4}, // the most elements decode lets pass
};

static struct gd_open_run open_run_of(const struct shape *shape) {
    struct gd_open_run open_run = {
        .max_lag = shape->max_lag,
        .inflight = shape->inflight,
        .n_groups = shape->n_groups,
        .n_parameter_groups = shape->n_parameter_groups,
        .elements = shape->n_groups * shape->numel,
        .adam.rule = shape->rule,
        .element_type = shape->type,
    };
    open_run.groups = calloc(shape->n_groups, sizeof(*open_run.groups));
    cr_assert_not_null(open_run.groups);
    for (uint32_t i = 0; i < shape->n_groups; i++)
        open_run.groups[i].numel = shape->numel;
    for (enum gd_rule rule = GD_RULE_SGD; open_run.n_shadows < n_shadows; rule++)
        if (rule != shape->rule)
            open_run.shadows[open_run.n_shadows++].rule = rule;
    return open_run;
}

static struct gd_layout layout_of(const struct shape *shape) {
    struct gd_open_run open_run = open_run_of(shape);
    struct gd_layout layout;
    gd_layout_init(&layout, &open_run);
    free(open_run.groups);
    return layout;
}

static size_t list_regions(const struct shape *shape, const struct gd_layout *l, struct region regions[REGIONS_MAX]) {
    const uint64_t state_bytes = sizeof(struct gd_run_state) +
                                 (1 + (uint64_t)n_shadows) * shape->n_groups * sizeof(struct gd_group_state) +
                                 shape->n_parameter_groups * sizeof(struct gd_adam_rates) +
                                 n_shadows * sizeof(struct gd_shadow_state) + 1024 * sizeof(int64_t);
    const uint64_t array_bytes = shape->n_groups * ((shape->numel + 15) / 16 * 16) * 4;
    const struct region fixed[] = {
        {"header 0", l->header_offset[0], sizeof(struct gd_memory_header), 64},
        {"header 1", l->header_offset[1], sizeof(struct gd_memory_header), 64},
        {"waiting", l->waiting_offset, 64, 64}, // words of two writers, each alone on its line
        {"notices", l->notices_offset, 64, 64},
        {"commits", l->commits_offset, 64, 64},
        {"written", l->written_offset, 64, 64},
        {"slot words", l->slot_words_offset, l->slots * UINT64_C(8), 64},
        {"state 0", l->state_offset[0], state_bytes, 8},
        {"state 1", l->state_offset[1], state_bytes, 8},
        {"user tags", l->user_tags_offset, UINT64_C(1024) * 256, 1},
        {"group norms", l->group_norms_offset, (uint64_t)l->slots * shape->n_groups * 8, 8},
        {"slot sums", l->slot_sums_offset, l->slots * (3 + (uint64_t)shape->max_lag) * 8, 8},
        {"outbox", l->outbox_offset, l->outbox_bytes, 4096},
        {"slots", l->slots_offset, l->slots * l->slot_stride_bytes, 4096},
    };
    size_t n = ARRAY_SIZE(fixed);
    memcpy(regions, fixed, sizeof(fixed));
    for (uint32_t rule = 0; rule <= n_shadows; rule++)
        for (uint32_t half = 0; half < 2; half++)
            for (uint32_t array = 0; array < l->state_arrays[rule]; array++)
                regions[n++] =
                    (struct region){"second moment", l->second_moment_offset[rule][half][array], array_bytes, 64};
    return n;
}

static void check_regions(void) {
    for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
        struct gd_layout layout = layout_of(&shapes[s]);
        struct region regions[REGIONS_MAX];
        size_t n = list_regions(&shapes[s], &layout, regions);

        for (size_t i = 0; i < n; i++) {
            const struct region *a = &regions[i];
            cr_expect_eq(a->offset % a->alignment, 0, "shape %zu: %s", s, a->name);
            cr_expect(a->bytes <= layout.total_bytes && a->offset <= layout.total_bytes - a->bytes, "shape %zu: %s", s,
                      a->name);
            for (size_t j = 0; j < i; j++) {
                const struct region *b = &regions[j];
                cr_expect(a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset,
                          "shape %zu: %s and %s overlap", s, a->name, b->name);
            }
        }
        cr_expect_eq(layout.total_bytes % 4096, 0, "shape %zu", s);
        cr_expect_eq(layout.state_bytes, regions[7].bytes, "shape %zu", s);
    }
}

Test(layout, regions_are_aligned_apart_and_inside) {
    for (n_shadows = 0; n_shadows <= GD_SHADOWS_MAX; n_shadows += GD_SHADOWS_MAX / 2)
        check_regions();
}

Test(layout, a_slot_holds_a_snapshot) {
    for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
        struct gd_layout layout = layout_of(&shapes[s]);
        uint64_t bytes = shapes[s].n_groups * shapes[s].numel * shapes[s].element_bytes;
        cr_expect_eq(layout.slots, shapes[s].max_lag + 1 + shapes[s].inflight, "shape %zu", s);
        cr_expect(layout.slot_stride_bytes >= bytes && layout.slot_stride_bytes < bytes + 4096, "shape %zu", s);
        cr_expect_eq(layout.slot_stride_bytes % 64, 0, "shape %zu", s);
    }
}

Test(layout, a_rule_decides_how_many_arrays_its_state_has) {
    const struct {
        enum gd_rule rule;
        uint32_t arrays;
    } cases[] = {
        {GD_RULE_SGD, 0},     {GD_RULE_ADAM, 1},    {GD_RULE_ADAMW, 1},  {GD_RULE_RMSPROP, 1},
        {GD_RULE_AMSGRAD, 2}, {GD_RULE_ADAGRAD, 1}, {GD_RULE_ADAFOM, 1}, {GD_RULE_OTHER, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct shape shape = {1, 100, 1, 5, 2, cases[i].rule, GD_F32, 4};
        cr_expect_eq(layout_of(&shape).state_arrays[0], cases[i].arrays, "rule %d", (int)cases[i].rule);
    }
}

// Only the slots follow the elements' type.
Test(layout, elements_of_two_bytes_halve_the_slots_alone) {
    const struct shape wide = {3, 1 << 20, 1, 5, 2, GD_RULE_AMSGRAD, GD_F32, 4};
    struct gd_layout expected = layout_of(&wide);

    expected.total_bytes -= expected.slots * expected.slot_stride_bytes / 2;
    expected.slot_stride_bytes /= 2;
    for (enum gd_element_type type = GD_BF16; type <= GD_F16; type++) {
        const struct shape narrow = {3, 1 << 20, 1, 5, 2, GD_RULE_AMSGRAD, type, 2};
        struct gd_layout layout = layout_of(&narrow);
        cr_expect_arr_eq(&layout, &expected, sizeof(layout), "type %d", (int)type);
    }
}

Test(layout, start_vectors_come_where_the_state_goes_in_its_first_step) {
    for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
        struct gd_open_run open_run = open_run_of(&shapes[s]);
        struct gd_layout without, with;
        gd_layout_init(&without, &open_run);
        open_run.starts = (UINT32_C(1) << gd_adam_state_arrays(&open_run.adam)) - 1;
        gd_layout_init(&with, &open_run);
        free(open_run.groups);

        cr_expect_eq(without.start_arrays, 0, "shape %zu", s);
        cr_expect_eq(with.start_arrays, with.state_arrays[0], "shape %zu", s);
        cr_expect(with.second_moment_bytes >= open_run.elements * 4, "shape %zu: a vector fits", s);
        with.start_arrays = 0;
        cr_expect_arr_eq(&with, &without, sizeof(with), "shape %zu: they take no memory of their own", s);
    }
}

// 40 groups, of which two share a name.
static void show_forty(struct gd_open_run *open_run, enum gd_per_group per_group, char names[40][8]) {
    const char *pointers[40];
    struct gd_error error;
    for (int i = 0; i < 40; i++) {
        snprintf(names[i], 8, "%d", i < 39 ? i : 0);
        pointers[i] = names[i];
    }
    open_run->selection.per_group = per_group;
    cr_assert_eq(gd_group_series_init(&open_run->series, &open_run->selection, pointers, 40, &error), 0);
}

Test(layout, each_group_that_is_shown_takes_state_and_records) {
    const struct shape shape = {40, 8, 1, 3, 2, GD_RULE_ADAM, GD_F32, 4};
    struct gd_open_run open_run = open_run_of(&shape);
    struct gd_layout without, with;
    char names[40][8];
    gd_layout_init(&without, &open_run);
    uint64_t dashboard = gd_dashboard_bytes_max(&open_run);
    show_forty(&open_run, GD_PER_GROUP_ALWAYS, names);
    gd_layout_init(&with, &open_run);

    uint64_t bytes = gd_dashboard_bytes_max(&open_run) - dashboard; // the page and the charts tell of groups, too
    for (unsigned quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++)
        for (int i = 0; i < 39; i++) {
            struct gd_tag_text text;
            if (quantity >= GD_GROUP_COSINE_LAG + 3 && quantity != GD_GROUP_FISHER)
                continue;
            gd_group_tag_describe(quantity, &text);
            bytes += gd_event_scalar_bytes_max(strlen(text.name) + strlen(names[i]), strlen(text.description));
        }
    cr_expect_eq(with.step_records_max - without.step_records_max, bytes);
    cr_expect_eq(with.state_bytes - without.state_bytes, 39 * sizeof(struct gd_series_state));
    cr_expect_geq(with.outbox_bytes, 4 * with.step_records_max);
    cr_expect(with.state_offset[1] - with.state_offset[0] >= with.state_bytes);
    gd_group_series_deinit(&open_run.series);
    free(open_run.groups);
}

// The parts of a run's state that depend on OpenRun lie one behind the other, and the user tags' part is the last.
Test(layout, the_states_tails_do_not_overlap) {
    const struct shape shape = {40, 8, 3, 3, 2, GD_RULE_ADAM, GD_F32, 4};
    for (n_shadows = 0; n_shadows <= 2; n_shadows++) {
        struct gd_open_run open_run = open_run_of(&shape);
        char names[40][8];
        show_forty(&open_run, GD_PER_GROUP_ALWAYS, names);
        struct gd_run_state *state = calloc(1, gd_run_state_bytes(&open_run));
        cr_assert_not_null(state);
        const struct {
            void *begin, *end;
        } parts[] = {
            {state, state + 1},
            {gd_run_state_groups(state), gd_run_state_groups(state) + 40},
            {gd_run_state_rates(state, 40), gd_run_state_rates(state, 40) + 3},
            {gd_run_state_shadows(state, &open_run), gd_run_state_shadows(state, &open_run) + n_shadows},
            {gd_run_state_rule_groups(state, &open_run, 1),
             gd_run_state_rule_groups(state, &open_run, 1) + (size_t)n_shadows * 40},
            {gd_run_state_series(state, &open_run), gd_run_state_series(state, &open_run) + 39},
            {gd_run_state_user_tag_steps(state, &open_run), gd_run_state_user_tag_steps(state, &open_run) + 1024},
        };
        for (size_t i = 1; i < ARRAY_SIZE(parts); i++)
            cr_expect_eq(parts[i].begin, parts[i - 1].end, "%u shadows, part %zu", n_shadows, i);
        cr_expect_eq((uint8_t *)parts[ARRAY_SIZE(parts) - 1].end, (uint8_t *)state + gd_run_state_bytes(&open_run));
        free(state);
        gd_group_series_deinit(&open_run.series);
        free(open_run.groups);
    }
    n_shadows = 0;
}

// The sum an error message of design.md prints.
Test(layout, twenty_five_million_parameters_take_800_and_200_megabytes) {
    const struct shape shape = {1, 25000000, 1, 5, 2, GD_RULE_ADAM, GD_F32, 4};
    struct gd_layout layout = layout_of(&shape);
    uint64_t slots = layout.slots * layout.slot_stride_bytes;
    uint64_t moments = layout.slots_offset - layout.second_moment_offset[0][0][0];
    const uint64_t page = 4096;

    cr_expect_eq(layout.second_moment_bytes, 100000000);
    cr_expect(slots >= 800000000 && slots < 800000000 + 8 * page, "slots take %lu", (unsigned long)slots);
    cr_expect(moments >= 200000000 && moments < 200000000 + 2 * page, "state takes %lu", (unsigned long)moments);
    cr_expect(layout.total_bytes - slots - moments < 4 << 20, "the rest takes %lu",
              (unsigned long)(layout.total_bytes - slots - moments));
}

Test(layout, depends_on_the_shape_alone) {
    for (size_t s = 0; s < ARRAY_SIZE(shapes); s++) {
        struct gd_open_run open_run = open_run_of(&shapes[s]);
        struct gd_layout layouts[2];

        memset(&layouts[0], 0x00, sizeof(layouts[0]));
        memset(&layouts[1], 0xff, sizeof(layouts[1]));
        gd_layout_init(&layouts[0], &open_run);
        gd_layout_init(&layouts[1], &open_run);
        cr_expect_arr_eq(&layouts[0], &layouts[1], sizeof(layouts[0]), "shape %zu, same OpenRun", s);

        // What does not shape the memory must not move it: a resumed run finds it where it was.
        strcpy(open_run.run, "another/name");
        open_run.wall_time = 1e9;
        open_run.first_step = 77;
        open_run.stride = 9;
        open_run.thinning = true;
        open_run.digest = 1;
        for (uint32_t i = 0; i < open_run.n_groups; i++)
            open_run.groups[i].step_lag = i;
        gd_layout_init(&layouts[1], &open_run);
        cr_expect_arr_eq(&layouts[0], &layouts[1], sizeof(layouts[0]), "shape %zu, other names", s);
        free(open_run.groups);
    }
}

static struct gd_scalar scalars[GD_TAG_COUNT * GD_RULES_MAX + GRADIENTD_USER_TAGS_MAX];
static struct gd_tag_text texts[GD_TAG_COUNT * GD_RULES_MAX];
static size_t n_scalars;

static void list_tag(const struct gd_tag_text *text) {
    texts[n_scalars] = *text;
    scalars[n_scalars] = gd_scalar_of(texts[n_scalars].name, 1.0f, text->description);
    n_scalars++;
}

// The largest step there can be: every own tag with its description and 1,024 user scalars with the longest names.
static void check_outbox(const struct shape *shape) {
    struct gd_layout layout = layout_of(shape);
    static char name[GRADIENTD_NAME_BYTES_MAX + 1];
    struct gd_record_buffer buffer = {.data = malloc(layout.step_records_max), .capacity = layout.step_records_max};
    struct gd_tag_text text;

    cr_assert_not_null(buffer.data);
    n_scalars = 0;
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++) {
        gd_tag_describe(tag, &text);
        list_tag(&text);
        for (uint32_t i = 0; i < n_shadows && gd_tag_is_adam(tag); i++) {
            gd_tag_describe_shadow(i + 1, tag, &text);
            list_tag(&text);
        }
    }
    memset(name, 'x', GRADIENTD_NAME_BYTES_MAX);
    for (int i = 0; i < GRADIENTD_USER_TAGS_MAX; i++)
        scalars[n_scalars++] = gd_scalar_of(name, 1.0f, "");
    gd_event_append_scalars(&buffer, 1.0, INT64_MAX, scalars, n_scalars); // asserts that it fits
    cr_expect(buffer.used > layout.step_records_max / 2, "the bound %lu is far above %zu",
              (unsigned long)layout.step_records_max, buffer.used);
    cr_expect(layout.outbox_bytes >= 4 * layout.step_records_max);
    cr_expect(layout.outbox_bytes >= 1 << 20);
    free(buffer.data);
}

Test(layout, the_outbox_holds_four_of_the_largest_steps) {
    const struct shape sgd = shapes[0], other = {1, 1, 1, 5, 2, GD_RULE_OTHER, GD_F16, 2};
    check_outbox(&sgd);
    for (n_shadows = 1; n_shadows <= GD_SHADOWS_MAX; n_shadows++) // of other the rules 1 to n
        check_outbox(&other);
}
