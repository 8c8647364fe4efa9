// The tags of each group in a run's file.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "run_rig.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

TestSuite(run_groups, .fini = free_run);

static void start_shown(enum gd_per_group per_group, uint32_t fold_depth) {
    struct gd_open_run *open_run = small_open_run();
    show_groups(open_run, per_group, fold_depth);
    start(open_run);
}

// A run of `n_groups` groups with what a run has that asks for nothing.
static void start_default(uint32_t n_groups) {
    static const uint64_t numel[] = {3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct gd_open_run *open_run = new_open_run(numel, n_groups);
    open_run->max_lag = 5;
    show_groups(open_run, GD_PER_GROUP_IF_FEW, 0);
    start(open_run);
}

static uint32_t free_slot(void) {
    uint32_t slot = 0;
    while (run->slot_use[slot] != GD_SLOT_FREE)
        slot++;
    return slot;
}

// A snapshot at `step` with a gradient of `value` in each element, without the groups that `absent` has bits for.
static void submit_step(int64_t step, float value, uint8_t absent) {
    uint32_t slot = free_slot();
    fill_slot(slot, value);
    struct block *block = new_snapshot(run->received_sequence + 1, step, slot);
    block->submission.groups_present = block->bitmap;
    block->submission.groups_present_bytes = (run->open_run->n_groups + 7) / 8;
    block->bitmap[0] = (uint8_t)~absent;
    block->bitmap[1] = 0xff;
    submit_good(block);
    work();
}

static void end_run(void) {
    submit_close(run->received_sequence + 1);
    read_events();
}

// How many tags of the file begin with `prefix`.
static size_t count_tags(const char *prefix) {
    static char tags[256][80];
    size_t n = 0;
    for (size_t e = 0; e < n_events; e++)
        for (size_t i = 0; events[e]->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY && i < events[e]->summary->n_value;
             i++) {
            const char *tag = events[e]->summary->value[i]->tag;
            size_t known = 0;
            while (known < n && strcmp(tags[known], tag) != 0)
                known++;
            if (strncmp(tag, prefix, strlen(prefix)) != 0 || known < n)
                continue;
            cr_assert(n < ARRAY_SIZE(tags));
            snprintf(tags[n++], sizeof(tags[0]), "%s", tag);
        }
    return n;
}

static float value_at(int64_t step, const char *tag) {
    for (size_t e = 0; e < n_events; e++) {
        const Tensorboard__Summary__Value *value = value_in(events[e], tag);
        if (events[e]->step == step && value)
            return value->simple_value;
    }
    return NAN;
}

// ---- Which tags there are -------------------------------------------------------------------------------------------

Test(run_groups, a_default_run_of_eight_groups_has_less_than_60_tags) {
    start_default(8);
    for (int64_t step = 1; step <= 20; step++)
        submit_step(step, 1.0f / (float)step, 0);
    end_run();
    cr_expect_eq(count_tags("group_norm/"), 8);
    cr_expect_eq(count_tags("group_cosine_lag1/"), 8);
    cr_expect_eq(count_tags("group_"), 16);
    cr_expect_eq(count_tags("adam/"), 13); // all that there can be
    cr_expect_lt(count_tags(""), 60, "%zu tags", count_tags(""));
    cr_expect_gt(count_tags(""), 45, "%zu tags", count_tags(""));
    free_events();
}

Test(run_groups, a_ninth_group_ends_them) {
    start_default(9);
    for (int64_t step = 1; step <= 3; step++)
        submit_step(step, 1.0f, 0);
    end_run();
    cr_expect_eq(count_tags("group_"), 0);
    cr_expect_gt(count_tags(""), 20);
    free_events();
}

Test(run_groups, on_request_every_quantity_has_its_tag) {
    start_shown(GD_PER_GROUP_ALWAYS, 0);
    for (int64_t step = 1; step <= 4; step++)
        submit_step(step, 0.5f, 0);
    end_run();
    static const char *const quantities[] = {"norm",     "cosine_lag1", "cosine_lag2",   "max_abs",       "non_finite",
                                             "B_over_A", "C_over_A",    "zero_fraction", "step_size_mean"};
    cr_expect_eq(count_tags("group_"), 3 * ARRAY_SIZE(quantities));
    for (size_t i = 0; i < ARRAY_SIZE(quantities); i++) {
        char prefix[48];
        snprintf(prefix, sizeof(prefix), "group_%s/group", quantities[i]);
        cr_expect_eq(count_tags(prefix), 3, "%s", prefix);
    }
    free_events();
}

Test(run_groups, the_first_value_alone_carries_metadata) {
    start_shown(GD_PER_GROUP_ALWAYS, 0);
    submit_step(1, 1.0f, 0);
    submit_step(2, 1.0f, 1 << 1);
    submit_step(3, 1.0f, 0);
    submit_step(4, 1.0f, 0);
    end_run();
    const struct {
        const char *tag;
        int64_t step;
        bool described;
    } cases[] = {
        {"group_norm/group0", 1, true},        {"group_norm/group0", 2, false},
        {"group_norm/group1", 1, true},        {"group_norm/group1", 3, false},
        {"group_cosine_lag1/group0", 2, true}, {"group_cosine_lag1/group0", 3, false},
        {"group_cosine_lag1/group1", 4, true}, // neither at 2 nor at 3 are both present
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (size_t e = 0; e < n_events; e++) {
            const Tensorboard__Summary__Value *value = value_in(events[e], cases[i].tag);
            if (!value || events[e]->step != cases[i].step)
                continue;
            cr_expect_eq(value->metadata != NULL, cases[i].described, "case %zu", i);
            cr_expect(!value->metadata || strchr(value->metadata->summary_description, '`'), "case %zu", i);
        }
    cr_expect_eq(count_values("group_cosine_lag1/group1", NULL, NULL), 1);
    free_events();
}

// ---- Their values ---------------------------------------------------------------------------------------------------

Test(run_groups, an_absent_group_has_no_value_and_a_folded_one_those_of_the_rest) {
    start_shown(GD_PER_GROUP_ALWAYS, 0);
    submit_step(1, 2.0f, 0);
    submit_step(2, 2.0f, 1 << 1);
    end_run();
    cr_expect_eq(value_at(1, "group_norm/group1"), (float)sqrt(4.0 * 40));
    cr_expect_eq(value_at(2, "group_norm/group0"), (float)sqrt(4.0 * 5));
    cr_expect(isnan(value_at(2, "group_norm/group1")));
    cr_expect(isnan(value_at(2, "group_B_over_A/group1")));
    cr_expect_eq(value_at(2, "group_cosine_lag1/group2"), 1.0f);
    free_events();
}

Test(run_groups, groups_of_one_name_are_one_series) {
    struct gd_open_run *open_run = small_open_run();
    const char *const names[] = {"layer.a", "layer.b", "head"};
    for (int i = 0; i < 3; i++)
        strcpy(open_run->groups[i].name = realloc(open_run->groups[i].name, 16), names[i]);
    show_groups(open_run, GD_PER_GROUP_IF_FEW, 1);
    start(open_run);
    submit_step(1, 2.0f, 0);
    submit_step(2, 2.0f, 1 << 1);
    submit_step(3, 2.0f, 1 << 0 | 1 << 1);
    end_run();
    cr_expect_eq(count_tags("group_norm/"), 2);
    cr_expect_eq(value_at(1, "group_norm/layer"), (float)sqrt(4.0 * 45));
    cr_expect_eq(value_at(2, "group_norm/layer"), (float)sqrt(4.0 * 5));
    cr_expect(isnan(value_at(3, "group_norm/layer")));
    cr_expect_eq(value_at(3, "group_norm/head"), (float)sqrt(4.0 * 3));
    free_events();
}

Test(run_groups, a_step_that_was_not_applied_has_no_adam_values) {
    start_shown(GD_PER_GROUP_ALWAYS, 0);
    submit_step(1, 1.0f, 0);
    struct block *block = new_snapshot(2, 2, free_slot());
    fill_slot(block->submission.slot, 4.0f);
    block->submission.applied = false;
    submit_good(block);
    submit_step(3, 1.0f, 0);
    end_run();
    cr_expect_eq(value_at(2, "group_max_abs/group0"), 4.0f);
    cr_expect(isnan(value_at(2, "group_B_over_A/group0")));
    cr_expect(isnan(value_at(2, "group_step_size_mean/group0")));
    // adam's steps are a x sign(g), b2 0.999 corrected, for a gradient that stays the same: B/A = a
    cr_expect_float_eq(value_at(3, "group_B_over_A/group0"), 0.01f, 1e-7f);
    free_events();
}

// ---- Thinning -------------------------------------------------------------------------------------------------------

Test(run_groups, thinned_values_carry_the_windows_maxima) {
    start_shown(GD_PER_GROUP_ALWAYS, 0);
    for (int64_t step = 9998; step <= 10023; step++) {
        float value = step == 10004 ? 8.0f : step == 10022 ? 4.0f : 1.0f;
        submit_step(step, value, step == 10010 ? 1 << 2 : 0);
    }
    end_run();
    cr_expect_eq(count_values("group_max_abs/group0", NULL, NULL), 2 + 3 + 1); // 9998, 9999, 10000, 10, 20, the last
    cr_expect_eq(value_at(9999, "group_max_abs/group0"), 1.0f);
    cr_expect_eq(value_at(10000, "group_max_abs/group0"), 1.0f);
    cr_expect_eq(value_at(10010, "group_max_abs/group0"), 8.0f);
    cr_expect_eq(value_at(10020, "group_max_abs/group0"), 1.0f);
    cr_expect_eq(value_at(10023, "group_max_abs/group0"), 4.0f);
    cr_expect_eq(value_at(10023, "group_norm/group0"), (float)sqrt(5.0));
    // absent at 10010: its window goes on
    cr_expect(isnan(value_at(10010, "group_max_abs/group2")));
    cr_expect_eq(value_at(10020, "group_max_abs/group2"), 8.0f);
    cr_expect_eq(value_at(10023, "group_max_abs/group2"), 4.0f);
    free_events();
}

// The last snapshot's values are held back; a group that is not in it has none.
Test(run_groups, the_end_shows_the_last_snapshots_groups) {
    start_shown(GD_PER_GROUP_ALWAYS, 0);
    submit_step(10000, 1.0f, 0);
    submit_step(10001, 2.0f, 0);
    submit_step(10002, 3.0f, 1 << 0);
    end_run();
    int64_t step = 0;
    float value = 0.0f;
    cr_expect_eq(count_values("group_norm/group0", &step, NULL), 1);
    cr_expect_eq(step, 10000);
    cr_expect_eq(count_values("group_max_abs/group1", &step, &value), 2);
    cr_expect_eq(step, 10002);
    cr_expect_eq(value, 3.0f);
    free_events();
}
