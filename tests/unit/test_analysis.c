#include "analysis.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "element_values.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

// A group longer than a chunk, one of two chunks exactly, and small ones between them.
static const uint64_t numel[] = {3, 70000, 16, 2 * GD_CHUNK_ELEMS, 1, 65537, 40};

enum { GROUPS = ARRAY_SIZE(numel), MAX_LAG = 3, ALL_PRESENT = (1 << GROUPS) - 1 };

// One run's memory, state and analysis, driven without a run.
struct rig {
    struct gd_open_run *open_run;
    struct gd_memory memory;
    struct gd_run_state *state;
    struct gd_analysis *analysis;
    uint64_t step;
    uint32_t slot;
};

static struct rig rig_new_of(enum gd_rule rule, enum gd_element_type type) {
    struct rig rig = {.open_run = new_open_run(numel, GROUPS)};
    rig.open_run->element_type = type;
    rig.open_run->max_lag = MAX_LAG;
    rig.open_run->adam.rule = rule;
    rig.open_run->adam.maximum_of = GD_MAXIMUM_CORRECTED;
    rig.open_run->n_shadows = 2;
    rig.open_run->shadows[0] = gd_adam_shadow(&rig.open_run->adam, GD_RULE_RMSPROP);
    rig.open_run->shadows[1] = gd_adam_shadow(&rig.open_run->adam, GD_RULE_ADAFOM);
    attach_new_memory(&rig.memory, rig.open_run);
    rig.state = calloc(1, rig.memory.layout.state_bytes);
    cr_assert_not_null(rig.state);
    *gd_run_state_rates(rig.state, GROUPS) = rig.open_run->parameter_groups[0];
    return rig;
}

static struct rig rig_new(enum gd_rule rule) {
    return rig_new_of(rule, GD_F32);
}

static void rig_start(struct rig *rig) {
    cr_assert_eq(gd_analysis_new(rig->open_run, &rig->memory, &gd_kernels_scalar, &rig->analysis), 0);
}

static void rig_free(struct rig *rig) {
    gd_analysis_free(rig->analysis);
    free(rig->state);
    gd_memory_deinit(&rig->memory);
    gd_open_run_free(rig->open_run);
}

// The elements of a step are a function of the step alone.
static void fill_slot(const struct rig *rig, uint64_t step, uint32_t slot) {
    float *elements = gd_memory_slot(&rig->memory, slot);
    for (uint64_t i = 0; i < rig->open_run->elements; i++) {
        uint64_t random = step << 32 | i;
        float g = (float)(random_unit(&random) - 0.5);
        elements[i] = next_random(&random) % 10 == 0 ? 0.0f : g;
    }
}

// What one step of a test does differently.
struct turn {
    uint32_t present; // bit per group
    bool not_applied;
    bool filled; // the slot holds its elements already
};

// One snapshot in `parts` parts, in an order that changes from step to step.
static struct gd_analysis_result rig_step(struct rig *rig, const struct turn *turn, uint32_t parts) {
    struct gd_adam_rates rates = {.learning_rate = 0.01, .beta2 = (double)NAN, .eps = (double)NAN};
    const uint8_t bitmap[] = {(uint8_t)turn->present};
    struct gd_submission snapshot = {
        .step = (int64_t)++rig->step,
        .optimizer_step = rig->state->adam.optimizer_step + 1,
        .applied = !turn->not_applied,
        .slot = rig->slot,
        .rates = &rates,
        .n_rates = 1,
        .groups_present = bitmap,
        .groups_present_bytes = sizeof(bitmap),
    };
    struct gd_analysis_input input = {.snapshot = &snapshot, .state = rig->state};
    const uint32_t slots = rig->memory.layout.slots;
    struct gd_analysis_result result;

    for (uint32_t lag = 1; lag <= MAX_LAG && lag < rig->step; lag++) {
        input.lag_slot[lag - 1] = (rig->slot + slots - lag) % slots;
        input.known_lags |= UINT32_C(1) << (lag - 1);
    }
    if (!turn->filled)
        fill_slot(rig, rig->step, rig->slot);
    gd_analysis_begin(rig->analysis, &input);
    for (uint32_t part = 0; part < parts; part++)
        gd_analysis_run(rig->analysis, (part + (uint32_t)rig->step) % parts, parts);
    gd_analysis_end(rig->analysis, &result);
    rig->slot = (rig->slot + 1) % slots;
    return result;
}

static bool same_bits(const double *a, const double *b, size_t n) {
    return memcmp(a, b, n * sizeof(*a)) == 0;
}

static bool same_sums(const struct gd_step_sums *a, const struct gd_step_sums *b) { // not memcmp: there is padding
    const double a_sums[] = {a->squared_norm, a->A, a->B, a->C, a->D, a->relative_square};
    const double b_sums[] = {b->squared_norm, b->A, b->B, b->C, b->D, b->relative_square};
    return a->elements == b->elements && a->zeros == b->zeros && a->non_finite == b->non_finite &&
           a->active == b->active && a->first_non_finite_group == b->first_non_finite_group &&
           a->max_abs == b->max_abs && a->step_size_min == b->step_size_min &&
           same_bits(a_sums, b_sums, ARRAY_SIZE(a_sums)) && same_bits(a->dot, b->dot, GD_LAG_MAX) &&
           same_bits(a->squared_norm_now, b->squared_norm_now, GD_LAG_MAX) &&
           same_bits(a->squared_norm_past, b->squared_norm_past, GD_LAG_MAX);
}

// ---- Progress -------------------------------------------------------------------------------------------------------

// Small groups count together.
Test(analysis, parts_tell_how_they_get_on) {
    struct rig rig = rig_new(GD_RULE_ADAM);
    const struct turn turn = {.present = ALL_PRESENT};
    _Atomic uint64_t progress = 0;
    rig_start(&rig);
    rig_step(&rig, &turn, 1); // to nobody
    gd_analysis_set_progress(rig.analysis, &progress);
    rig_step(&rig, &turn, 1);
    cr_expect_eq(progress, rig.open_run->elements / GD_CHUNK_ELEMS, "%llu", (unsigned long long)progress);
    rig_free(&rig);
}

// ---- Parts ----------------------------------------------------------------------------------------------------------

static const struct turn turns[] = {
    {.present = ALL_PRESENT},
    {.present = ALL_PRESENT},
    {.present = ALL_PRESENT & ~0x0a},
    {.present = ALL_PRESENT, .not_applied = true},
    {.present = 0x10},
    {.present = ALL_PRESENT},
};

static void check_parts(enum gd_rule rule) {
    struct gd_analysis_result expected[ARRAY_SIZE(turns)];
    uint8_t *memory = NULL;
    uint64_t memory_bytes = 0;

    for (uint32_t parts = 1; parts <= 7; parts++) {
        struct rig rig = rig_new(rule);
        rig_start(&rig);
        for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
            struct gd_analysis_result result = rig_step(&rig, &turns[i], parts);
            if (parts == 1)
                expected[i] = result;
            cr_expect(same_sums(&result.sums, &expected[i].sums), "rule %d, %u parts, step %zu", (int)rule, parts,
                      i + 1);
            for (uint32_t shadow = 0; shadow < rig.open_run->n_shadows; shadow++)
                cr_expect(same_sums(&result.shadow_sums[shadow], &expected[i].shadow_sums[shadow]),
                          "rule %d, %u parts, step %zu, shadow %u", (int)rule, parts, i + 1, shadow);
        }
        // Second moments, norms and slots too.
        if (!memory) {
            memory_bytes = rig.memory.layout.total_bytes;
            memory = malloc(memory_bytes);
            cr_assert_not_null(memory);
            memcpy(memory, rig.memory.base, memory_bytes);
        }
        cr_expect_eq(memcmp(memory, rig.memory.base, memory_bytes), 0, "rule %d, %u parts", (int)rule, parts);
        rig_free(&rig);
    }
    free(memory);
}

Test(analysis, the_number_of_parts_changes_no_bit) {
    check_parts(GD_RULE_SGD);
    check_parts(GD_RULE_ADAM);
    check_parts(GD_RULE_AMSGRAD);
}

Test(analysis, small_work_is_not_divided) {
    const struct {
        uint64_t elements;
        uint32_t parts_max, parts;
    } cases[] = {
        {1, 8, 1},       {262143, 8, 1}, {524287, 8, 1},
        {524288, 8, 2},  {786432, 8, 3}, {1 << 30, 8, 8},
        {1 << 30, 1, 1}, {524288, 1, 1}, {UINT64_C(1) << 40, 64, 64},
    };
    struct rig rig = rig_new(GD_RULE_SGD);
    uint64_t elements = rig.open_run->elements;
    rig_start(&rig);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        rig.open_run->elements = cases[i].elements;
        cr_expect_eq(gd_analysis_parts(rig.analysis, cases[i].parts_max), cases[i].parts, "%" PRIu64 " elements",
                     cases[i].elements);
    }
    rig.open_run->elements = elements;
    rig_free(&rig);
}

// ---- Element types --------------------------------------------------------------------------------------------------

// The steps' elements cut to `type` (in f32: to the values that leaves), one in a hundred of them not finite.
static void fill_slot_cut(const struct rig *rig, enum gd_element_type cut, uint64_t step, uint32_t slot) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    void *elements = gd_memory_slot(&rig->memory, slot);
    for (uint64_t i = 0; i < rig->open_run->elements; i++) {
        uint64_t random = step << 32 | i;
        float g = (float)(random_unit(&random) - 0.5);
        uint32_t bits = element_bits(cut, next_random(&random) % 100 == 0 ? bad[i % ARRAY_SIZE(bad)] : g);
        if (rig->open_run->element_type == GD_F32)
            bits = element_bits(GD_F32, (float)element_value(cut, bits));
        element_store(rig->open_run->element_type, elements, i, bits);
    }
}

static void check_type(enum gd_element_type type) {
    struct rig rig = rig_new_of(GD_RULE_AMSGRAD, type), wide = rig_new_of(GD_RULE_AMSGRAD, GD_F32);
    uint64_t non_finite = 0;
    rig_start(&rig);
    rig_start(&wide);
    for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
        struct turn turn = turns[i];
        turn.filled = true;
        fill_slot_cut(&rig, type, i + 1, rig.slot);
        fill_slot_cut(&wide, type, i + 1, wide.slot);
        struct gd_analysis_result result = rig_step(&rig, &turn, 3), expected = rig_step(&wide, &turn, 2);
        cr_expect(same_sums(&result.sums, &expected.sums), "type %d, step %zu", (int)type, i + 1);
        non_finite += result.sums.non_finite;
    }
    cr_expect_gt(non_finite, 0);
    uint64_t moments = rig.memory.layout.second_moment_offset[0][0][0];
    cr_assert_eq(rig.memory.layout.slots_offset, wide.memory.layout.slots_offset);
    cr_expect_eq(memcmp(rig.memory.base + moments, wide.memory.base + moments,
                        rig.memory.layout.slots_offset - moments),
                 0, "type %d: second moments", (int)type);
    rig_free(&wide);
    rig_free(&rig);
}

Test(analysis, elements_of_16_bits_give_the_bits_of_their_values_in_f32) {
    check_type(GD_BF16);
    check_type(GD_F16);
}

// ---- Groups that are shown ------------------------------------------------------------------------------------------

static void name_groups(struct gd_open_run *open_run) {
    static const char *const names[GROUPS] = {"a/0", "b/1", "a/2", "c/3", "b/4", "a/5", "c/6"};
    for (uint32_t i = 0; i < GROUPS; i++) {
        free(open_run->groups[i].name);
        open_run->groups[i].name = strdup(names[i]);
    }
}

static struct rig rig_new_shown(uint32_t fold_depth) {
    struct rig rig = rig_new(GD_RULE_ADAM);
    name_groups(rig.open_run);
    show_groups(rig.open_run, GD_PER_GROUP_ALWAYS, fold_depth);
    return rig;
}

// A series has the sums of its present groups, merged in their order, whatever the number of parts.
Test(analysis, groups_of_one_name_add_up) {
    for (uint32_t parts = 1; parts <= 5; parts++) {
        struct rig alone = rig_new_shown(0), folded = rig_new_shown(1);
        rig_start(&alone);
        rig_start(&folded);
        cr_assert(alone.open_run->series.n_series == GROUPS && folded.open_run->series.n_series == 3);
        for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
            struct gd_analysis_result each = rig_step(&alone, &turns[i], 1);
            struct gd_analysis_result merged = rig_step(&folded, &turns[i], parts);
            struct gd_step_sums all, expected[3];
            gd_step_sums_init(&all);
            for (int series = 0; series < 3; series++)
                gd_step_sums_init(&expected[series]);
            for (uint32_t group = 0; group < GROUPS; group++) {
                cr_expect_eq(each.series[group].elements, turns[i].present >> group & 1 ? numel[group] : 0);
                gd_step_sums_merge(&all, &each.series[group], MAX_LAG);
                gd_step_sums_merge(&expected[gd_group_series_of(&folded.open_run->series, group)], &each.series[group],
                                   MAX_LAG);
            }
            cr_expect(same_sums(&all, &each.sums) && same_sums(&all, &merged.sums), "step %zu", i + 1);
            for (int series = 0; series < 3; series++)
                cr_expect(same_sums(&merged.series[series], &expected[series]), "step %zu, %u parts, series %d", i + 1,
                          parts, series);
        }
        rig_free(&alone);
        rig_free(&folded);
    }
}

// ---- Sums against plain arithmetic ----------------------------------------------------------------------------------

// One slot's elements of group `group`.
static const float *group_elements(const struct rig *rig, uint32_t slot, uint32_t group) {
    const float *elements = gd_memory_slot(&rig->memory, slot);
    for (uint32_t i = 0; i < group; i++)
        elements += numel[i];
    return elements;
}

static long double product(const struct rig *rig, uint32_t slot_a, uint32_t slot_b, uint32_t groups) {
    long double sum = 0.0L;
    for (uint32_t group = 0; group < GROUPS; group++) {
        const float *a = group_elements(rig, slot_a, group), *b = group_elements(rig, slot_b, group);
        if (!(groups >> group & 1))
            continue;
        for (uint64_t i = 0; i < numel[group]; i++)
            if (isfinite(a[i]) && isfinite(b[i]))
                sum += (long double)a[i] * (long double)b[i];
    }
    return sum;
}

static void expect_close(double actual, long double expected, double size, const char *what, uint32_t lag, size_t i) {
    cr_expect((double)fabsl((long double)actual - expected) <= 1e-6 * size, "step %zu, lag %u: %s is %.9g, not %.9g",
              i + 1, lag, what, actual, (double)expected);
}

// A group counts for a lag only where it is present in both snapshots; its norms follow it.
Test(analysis, absent_groups_are_left_out_now_and_in_the_past) {
    struct rig rig = rig_new(GD_RULE_ADAM);
    rig_start(&rig);

    for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
        uint32_t slot = rig.slot, slots = rig.memory.layout.slots;
        struct gd_analysis_result result = rig_step(&rig, &turns[i], 2);
        const struct gd_step_sums *sums = &result.sums;
        long double norm = product(&rig, slot, slot, turns[i].present);
        uint64_t elements = 0;

        for (uint32_t group = 0; group < GROUPS; group++)
            elements += turns[i].present >> group & 1 ? numel[group] : 0;
        cr_expect_eq(sums->elements, elements, "step %zu", i + 1);
        expect_close(sums->squared_norm, norm, (double)norm, "|g|^2", 0, i);
        for (uint32_t lag = 1; lag <= MAX_LAG && lag <= i; lag++) {
            uint32_t past = (slot + slots - lag) % slots, both = turns[i].present & turns[i - lag].present;
            expect_close(sums->dot[lag - 1], product(&rig, slot, past, both), (double)norm, "dot", lag, i);
            expect_close(sums->squared_norm_now[lag - 1], product(&rig, slot, slot, both), (double)norm, "|now|^2", lag,
                         i);
            expect_close(sums->squared_norm_past[lag - 1], product(&rig, past, past, both), (double)norm, "|past|^2",
                         lag, i);
        }
        for (uint32_t lag = (uint32_t)i + 1; lag <= MAX_LAG; lag++)
            cr_expect(sums->dot[lag - 1] == 0.0 && sums->squared_norm_past[lag - 1] == 0.0, "step %zu, lag %u", i + 1,
                      lag);
    }
    rig_free(&rig);
}

Test(analysis, a_slot_keeps_the_norm_of_each_group_that_was_present) {
    struct rig rig = rig_new(GD_RULE_SGD);
    rig_start(&rig);
    rig_step(&rig, &(struct turn){.present = 0x2d}, 1);
    const double *norms = gd_memory_group_norms(&rig.memory, 0, GROUPS);
    for (uint32_t group = 0; group < GROUPS; group++) {
        long double norm = product(&rig, 0, 0, 1u << group);
        if (0x2d >> group & 1)
            cr_expect((double)fabsl((long double)norms[group] - norm) <= 1e-6 * (double)norm, "group %u", group);
        else
            cr_expect(norms[group] < 0.0, "group %u", group);
    }
    rig_free(&rig);
}

// ---- The optimiser state --------------------------------------------------------------------------------------------

static uint64_t state_offset(uint32_t group) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < group; i++)
        offset += (numel[i] + 15) / 16 * 16;
    return offset;
}

static const float *current_root(const struct rig *rig, uint32_t group) {
    uint64_t half = gd_run_state_groups(rig->state)[group].half;
    return gd_memory_second_moment(&rig->memory, 0, half, 0) + state_offset(group);
}

// After one step from nothing v is (1 - b2) g^2; inactive coordinates have none.
Test(analysis, each_group_has_its_own_second_moments) {
    struct rig rig = rig_new(GD_RULE_ADAM);
    rig_start(&rig);
    rig_step(&rig, &(struct turn){.present = ALL_PRESENT}, 3);
    for (uint32_t group = 0; group < GROUPS; group++) {
        const float *g = group_elements(&rig, 0, group), *root = current_root(&rig, group);
        cr_expect_eq(gd_run_state_groups(rig.state)[group].half, 1, "group %u", group);
        for (uint64_t i = 0; i < numel[group]; i++) {
            double expected = fabs((double)g[i]) * sqrt(1.0 - 0.999);
            cr_assert(fabs((double)root[i] - expected) <= 1e-6 * expected, "group %u, element %" PRIu64, group, i);
        }
    }
    rig_free(&rig);
}

static void expect_state_unchanged(const struct turn *turn, uint32_t unchanged, const char *what) {
    struct rig rig = rig_new(GD_RULE_AMSGRAD);
    const uint64_t moments = rig.memory.layout.second_moment_offset[0][0][0];
    const uint64_t bytes = rig.memory.layout.slots_offset - moments;
    uint8_t *before = malloc(bytes);
    cr_assert_not_null(before);
    rig_start(&rig);
    rig_step(&rig, &(struct turn){.present = ALL_PRESENT}, 1);
    rig_step(&rig, &(struct turn){.present = ALL_PRESENT}, 1);

    struct gd_group_state groups[GROUPS];
    memcpy(groups, gd_run_state_groups(rig.state), sizeof(groups));
    memcpy(before, rig.memory.base + moments, bytes);
    rig_step(&rig, turn, 2);
    for (uint32_t group = 0; group < GROUPS; group++) {
        const struct gd_group_state *now = &gd_run_state_groups(rig.state)[group];
        uint64_t offset = state_offset(group) * sizeof(float);
        bool same_moments = true;
        for (uint64_t half = 0; half < 2; half++)
            for (uint32_t array = 0; array < 2; array++) {
                uint64_t at = rig.memory.layout.second_moment_offset[0][half][array] + offset;
                same_moments &=
                    memcmp(rig.memory.base + at, before + (at - moments), numel[group] * sizeof(float)) == 0;
            }
        bool stays = unchanged >> group & 1;
        cr_expect_eq(same_moments, stays, "%s: second moments of group %u", what, group);
        cr_expect_eq(now->half == groups[group].half, stays, "%s: half of group %u", what, group);
        cr_expect_eq(now->adam.updates == groups[group].adam.updates, stays, "%s: updates of group %u", what, group);
    }
    free(before);
    rig_free(&rig);
}

Test(analysis, a_step_that_was_not_applied_leaves_the_state_alone) {
    expect_state_unchanged(&(struct turn){.present = ALL_PRESENT, .not_applied = true}, ALL_PRESENT, "not applied");
}

Test(analysis, an_absent_groups_state_stands_still) {
    expect_state_unchanged(&(struct turn){.present = 0x55}, ALL_PRESENT & ~0x55, "absent");
    expect_state_unchanged(&(struct turn){.present = 0}, ALL_PRESENT, "all absent");
}

Test(analysis, a_step_that_was_not_applied_has_no_adam_terms) {
    struct rig rig = rig_new(GD_RULE_ADAM);
    rig_start(&rig);
    rig_step(&rig, &(struct turn){.present = ALL_PRESENT}, 1);
    struct gd_adam_state before = rig.state->adam;
    struct gd_analysis_result result = rig_step(&rig, &(struct turn){.present = ALL_PRESENT, .not_applied = true}, 1);
    cr_expect(result.sums.A == 0.0 && result.sums.B == 0.0 && result.sums.relative_square == 0.0);
    cr_expect(result.sums.squared_norm > 0.0 && result.sums.dot[0] != 0.0);
    cr_expect_eq(memcmp(&before, &rig.state->adam, sizeof(before)), 0);
    rig_free(&rig);
}

// Element i's second moment, as an optimiser has it, and its maximum.
static float second_moment(uint64_t i) {
    return 1.0f + (float)(i % 1000);
}

// Tight in half 1, they become roots in half 0, each group on a cache line of its own.
Test(analysis, start_vectors_become_the_state) {
    const uint32_t young = 2; // a group without a step so far, whatever the vector says of it
    for (uint32_t parts = 1; parts <= 3; parts++) {
        struct rig rig = rig_new(GD_RULE_AMSGRAD);
        rig_start(&rig);
        rig.open_run->starts = 3; // v and its maximum
        rig.open_run->groups[young].step_lag = 9;
        float *v = gd_memory_second_moment(&rig.memory, 0, 1, 0),
              *v_max = gd_memory_second_moment(&rig.memory, 0, 1, 1);
        for (uint64_t i = 0; i < rig.open_run->elements; i++) {
            v[i] = second_moment(i);
            v_max[i] = 4000.0f * second_moment(i); // above v corrected: 1 / (1 - 0.999^9) is 112
        }
        struct gd_submission start = {.kind = GD_SUBMISSION_START, .optimizer_step = 9};
        struct gd_analysis_input input = {.snapshot = &start, .state = rig.state};
        gd_analysis_begin_start(rig.analysis, &input);
        for (uint32_t part = parts; part-- > 0;)
            gd_analysis_run(rig.analysis, part, parts);

        uint64_t at = 0;
        for (uint32_t group = 0; group < GROUPS; group++) {
            const float *root = gd_memory_second_moment(&rig.memory, 0, 0, 0) + state_offset(group);
            const float *maximum = gd_memory_second_moment(&rig.memory, 0, 0, 1) + state_offset(group);
            for (uint64_t i = 0; i < numel[group]; i++, at++) {
                cr_assert_eq(root[i], group == young ? 0.0f : sqrtf(second_moment(at)), "group %u", group);
                cr_assert_eq(maximum[i], group == young ? 0.0f : sqrtf(4000.0f * second_moment(at)), "group %u", group);
                cr_assert_eq(v[at], second_moment(at), "what came stays as it came");
            }
        }
        rig_free(&rig);
    }
}

// ---- Non-finite elements --------------------------------------------------------------------------------------------

Test(analysis, the_first_group_with_a_non_finite_element_is_named) {
    const struct {
        uint32_t groups, present, first;
        uint64_t count;
    } cases[] = {
        {0, ALL_PRESENT, UINT32_MAX, 0},
        {1 << 0, ALL_PRESENT, 0, 1},
        {1 << 6, ALL_PRESENT, 6, 1},
        {1 << 3 | 1 << 5, ALL_PRESENT, 3, 2},
        {ALL_PRESENT, ALL_PRESENT, 0, GROUPS},
        {1 << 1 | 1 << 4, ALL_PRESENT & ~(1 << 1), 4, 1},
        {1 << 2, ALL_PRESENT & ~(1 << 2), UINT32_MAX, 0},
    };
    const float bad[] = {NAN, INFINITY, -INFINITY};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig rig = rig_new(GD_RULE_ADAM);
        rig_start(&rig);
        fill_slot(&rig, 1, 0);
        uint64_t last = 0; // of each group the last element: of the long ones in another chunk than the first
        for (uint32_t group = 0; group < GROUPS; group++) {
            last += numel[group];
            if (cases[i].groups >> group & 1)
                ((float *)gd_memory_slot(&rig.memory, 0))[last - 1] = bad[group % ARRAY_SIZE(bad)];
        }
        struct gd_analysis_result result =
            rig_step(&rig, &(struct turn){.present = cases[i].present, .filled = true}, 3);
        cr_expect_eq(result.sums.first_non_finite_group, cases[i].first, "case %zu", i);
        cr_expect_eq(result.sums.non_finite, cases[i].count, "case %zu", i);
        cr_expect(isfinite(result.sums.squared_norm) && isfinite(result.sums.A), "case %zu", i);
        rig_free(&rig);
    }
}

// ---- Rates ----------------------------------------------------------------------------------------------------------

Test(analysis, rates_stay_until_they_are_stated_again) {
    struct rig rig = rig_new(GD_RULE_SGD);
    rig_start(&rig);
    const struct {
        struct gd_adam_rates given, kept;
    } steps[] = {
        {{0.1, (double)NAN, (double)NAN}, {0.1, 0.999, 1e-8}},
        {{0.2, 0.5, (double)NAN}, {0.2, 0.5, 1e-8}},
        {{0.3, (double)NAN, 0.25}, {0.3, 0.5, 0.25}},
        {{0.0, (double)NAN, (double)NAN}, {0.0, 0.5, 0.25}},
    };
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct gd_adam_rates given = steps[i].given;
        struct gd_submission snapshot = {.step = (int64_t)i, .rates = &given, .n_rates = 1};
        struct gd_analysis_input input = {.snapshot = &snapshot, .state = rig.state};
        struct gd_analysis_result result;
        gd_analysis_begin(rig.analysis, &input);
        gd_analysis_run(rig.analysis, 0, 1);
        gd_analysis_end(rig.analysis, &result);
        const struct gd_adam_rates *kept = gd_run_state_rates(rig.state, GROUPS);
        cr_expect_eq(memcmp(kept, &steps[i].kept, sizeof(*kept)), 0, "step %zu", i);
    }
    rig_free(&rig);
}
