// The families that go by dot products with the snapshots before, through a run: what of a stream they count.
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "run_rig.h"
#include "support.h"

enum { ELEMS = 48 }; // 5, 40 and 3

TestSuite(run_noise, .init = start_small, .fini = free_run);

// Submits a snapshot with `value` in each element, batch size 10 and clip factor 1, unless `change` does otherwise.
static void take(uint64_t sequence, float value, void (*change)(struct block *block)) {
    uint32_t slot = 0;
    while (run->slot_use[slot] != GD_SLOT_FREE)
        slot++;
    fill_slot(slot, value);
    struct block *block = new_snapshot(sequence, (int64_t)sequence, slot);
    block->submission.batch_size = 10.0;
    if (change)
        change(block);
    submit_good(block);
    work();
}

static const float *find(int64_t step, const char *tag) {
    for (size_t i = 0; i < n_events; i++) {
        const Tensorboard__Summary__Value *value = events[i]->step == step ? value_in(events[i], tag) : NULL;
        if (value)
            return &value->simple_value;
    }
    return NULL;
}

static void expect_value(int64_t step, const char *tag, double expected) {
    const float *value = find(step, tag);
    cr_assert_not_null(value, "%s at step %" PRId64, tag, step);
    cr_expect(fabs((double)*value - expected) <= 1e-6 * fabs(expected), "%s at step %" PRId64 " is %.9g, not %.9g", tag,
              step, (double)*value, expected);
}

static void expect_none(int64_t step, const char *tag) {
    const float *value = find(step, tag);
    cr_expect_null(value, "%s at step %" PRId64 " is %g", tag, step, value ? (double)*value : 0.0);
}

static void finish(uint64_t sequence) {
    submit_close(sequence);
    read_events();
}

// ---- Noise from two steps -------------------------------------------------------------------------------------------

static void clip_by_half(struct block *block) {
    block->submission.clip_factor = 0.5;
}

static void other_batch(struct block *block) {
    block->submission.batch_size = 40.0;
}

static void no_batch(struct block *block) {
    block->submission.batch_size = 0.0;
}

static void not_applied(struct block *block) {
    block->submission.applied = false;
}

static void without_group_1(struct block *block) {
    block->bitmap[0] = 5;
    block->submission.groups_present = block->bitmap;
    block->submission.groups_present_bytes = 1;
}

Test(run_noise, successive_gradients_give_their_dot_product_and_difference) {
    take(1, 1.0f, NULL);
    take(2, 3.0f, NULL);
    take(3, 1.0f, clip_by_half); // 2 before
    take(4, 1.0f, other_batch);
    take(5, 2.0f, not_applied);
    finish(6);
    expect_none(1, "noise_single/S");
    expect_value(2, "noise_single/G2", 3.0 * ELEMS);
    expect_value(2, "noise_single/S", 10.0 * 4.0 * ELEMS / 2.0);
    expect_value(3, "noise_single/G2", 6.0 * ELEMS);
    expect_value(3, "noise_single/S", 10.0 * 1.0 * ELEMS / 2.0);
    expect_value(4, "noise_single/G2", 2.0 * ELEMS);
    expect_value(4, "noise_single/S", 1.0 * ELEMS / (1.0 / 10.0 + 1.0 / 40.0));
    expect_value(5, "noise_single/G2", 2.0 * ELEMS);
    expect_value(5, "noise_single/S", 1.0 * ELEMS / (1.0 / 10.0 + 1.0 / 40.0));
    expect_none(5, "noise/S");
    expect_none(5, "fisher/trace_empirical");
    free_events();
}

Test(run_noise, a_step_or_its_past_that_does_not_tell_has_no_value) {
    take(1, 1.0f, NULL);
    take(2, 1.0f, no_batch);
    take(3, 1.0f, NULL);
    take(4, 1.0f, without_group_1);
    take(5, 1.0f, NULL);
    take(6, 1.0f, NULL);
    take(7, (float)NAN, NULL);
    take(8, 1.0f, NULL);
    take(9, 1.0f, NULL);
    finish(10);
    for (int64_t step = 1; step <= 9; step++)
        if (step != 6 && step != 9)
            expect_none(step, "noise_single/G2");
    expect_value(6, "noise_single/G2", ELEMS);
    expect_value(9, "noise_single/G2", ELEMS);
    free_events();
}

Test(run_noise, a_step_that_was_not_seen_is_no_past) {
    fill_slot(0, 1.0f);
    fill_slot(1, 1.0f);
    for (uint32_t i = 0; i < 2; i++) {
        struct block *block = new_snapshot(i + 1, 1 + 2 * i, i);
        block->submission.batch_size = 10.0;
        submit_good(block);
    }
    finish(3);
    expect_none(3, "noise_single/G2");
    expect_value(3, "coherence/cosine_lag2", 1.0);
    free_events();
}

// ---- Noise from two batch sizes -------------------------------------------------------------------------------------

static void two_sizes(struct block *block) { // |g_big|^2 is 48 at 10, |g_small|^2 240 at 2: S = 480, G2 = 0
    add_squared_norm(block, 2.0, 240.0, NULL);
}

static void three_sizes(struct block *block) { // of the two smallest the mean; the other does not count
    add_squared_norm(block, 5.0, 1e6, NULL);
    add_squared_norm(block, 2.0, 200.0, NULL);
    add_squared_norm(block, 2.0, 280.0, NULL);
}

static void clipped(struct block *block) {
    block->submission.clip_factor = 0.5;
    add_squared_norm(block, 2.0, 240.0, NULL);
}

static void larger(struct block *block) {
    add_squared_norm(block, 10.0, 240.0, NULL);
}

static void infinite(struct block *block) {
    add_squared_norm(block, 2.0, (double)INFINITY, NULL);
}

static void absent(struct block *block) {
    without_group_1(block);
    add_squared_norm(block, 2.0, 240.0, NULL);
}

Test(run_noise, two_batch_sizes) {
    take(1, 1.0f, two_sizes);
    take(2, 1.0f, three_sizes);
    take(3, 0.5f, clipped);
    take(4, 1.0f, larger);
    take(5, 1.0f, infinite);
    take(6, 1.0f, absent);
    take(7, (float)NAN, two_sizes);
    take(8, 1.0f, two_sizes);
    finish(9);
    static const int64_t with[] = {1, 2, 3, 8};
    for (size_t i = 0; i < 4; i++) {
        expect_value(with[i], "noise/S", 480.0);
        expect_value(with[i], "noise/G2", 0.0);
        expect_value(with[i], "fisher/trace_empirical", 480.0);
        expect_none(with[i], "noise/B_simple"); // G2 is 0
    }
    for (int64_t step = 4; step <= 7; step++)
        expect_none(step, "noise/S");
    expect_none(8, "fisher/trace");
    free_events();
}

static double small_trace;

static void of_trace(struct block *block) { // |g_2|^2 that makes S + G2, with |g_10|^2 = 48, what is asked for
    // S = 2.5 (x - 48), G2 = (480 - 2 x) / 8: S + G2 = 2.25 x - 60
    add_squared_norm(block, 2.0, (small_trace + 60.0) / 2.25, NULL);
}

Test(run_noise, the_critical_periods_end_is_told_once) {
    for (uint64_t t = 1; t <= 50; t++) {
        small_trace = t <= 30 ? 90.0 : 10.0;
        take(t, 1.0f, of_trace);
    }
    cr_expect_eq(run->state->noise.announced, 0);
    uint64_t t = 51;
    for (; !run->state->noise.announced; t++)
        take(t, 1.0f, of_trace);
    int64_t told = (int64_t)t - 1;
    take(t, 1.0f, of_trace);
    double d30 = pow(0.99, 30), dn = pow(0.99, (double)(told - 30)), before = dn / 0.99;
    // 30 of 90 and then n of 10 average (90 (1 - d^30) d^n + 10 (1 - d^n)) / (1 - d^(30 + n))
    cr_expect((90.0 * (1.0 - d30) * dn + 10.0 * (1.0 - dn)) / (1.0 - d30 * dn) <= 45.0);
    cr_expect((90.0 * (1.0 - d30) * before + 10.0 * (1.0 - before)) / (1.0 - d30 * before) > 45.0);
    cr_expect_eq(run->state->noise.peak_step >= 20 && run->state->noise.peak_step <= 30, 1);
    cr_expect(fabs(run->state->noise.peak - 90.0) < 1e-9);
    finish(t + 1);
    size_t texts = 0;
    for (size_t i = 0; i < n_events; i++) {
        const Tensorboard__Summary__Value *value = value_in(events[i], "fisher/critical_period");
        if (!value)
            continue;
        texts++;
        cr_expect_eq(events[i]->step, told);
        cr_assert_eq(value->tensor->n_string_val, 1);
        char text[600] = "", expected[64];
        memcpy(text, value->tensor->string_val[0].data, value->tensor->string_val[0].len);
        snprintf(expected, sizeof(expected), "at step %" PRId64 " with 90,", run->state->noise.peak_step);
        cr_expect_not_null(strstr(text, expected), "%s", text);
        snprintf(expected, sizeof(expected), "by step %" PRId64 ".", told);
        cr_expect_not_null(strstr(text, expected), "%s", text);
    }
    cr_expect_eq(texts, 1);
    free_events();
}

// ---- Group by group -------------------------------------------------------------------------------------------------

static const double group_norms[GROUPS] = {20.0, 400.0, 8.0}; // |g_small|^2 of each; |g_big|^2 is its elements

static void grouped(struct block *block) {
    add_squared_norm(block, 2.0, 428.0, group_norms);
}

static void grouped_absent(struct block *block) {
    without_group_1(block);
    grouped(block);
}

static void partly_grouped(struct block *block) {
    grouped(block);
    add_squared_norm(block, 2.0, 428.0, NULL);
}

static double fisher_of(double small, double big) {
    return (small - big) / (1.0 / 2.0 - 1.0 / 10.0) + (10.0 * big - 2.0 * small) / 8.0;
}

Test(run_noise_of_groups, groups_add_up_to_the_whole, .fini = free_run) {
    static const double elems[GROUPS] = {5.0, 40.0, 3.0};
    struct gd_open_run *open_run = small_open_run();
    show_groups(open_run, GD_PER_GROUP_IF_FEW, 0);
    start(open_run);
    char tags[GROUPS][64];
    for (uint32_t i = 0; i < GROUPS; i++)
        snprintf(tags[i], sizeof(tags[i]), "group_fisher/%s", run->open_run->series.name[i]);
    take(1, 1.0f, grouped);
    take(2, 1.0f, grouped_absent);
    take(3, 1.0f, partly_grouped);
    take(4, 1.0f, two_sizes);
    finish(5);
    double sum = 0.0;
    for (uint32_t i = 0; i < GROUPS; i++) {
        expect_value(1, tags[i], fisher_of(group_norms[i], elems[i]));
        sum += fisher_of(group_norms[i], elems[i]);
        expect_none(3, tags[i]);
        expect_none(4, tags[i]);
    }
    expect_value(1, "fisher/trace_empirical", sum);
    expect_value(2, tags[0], fisher_of(group_norms[0], elems[0]));
    expect_none(2, tags[1]);
    expect_none(2, "fisher/trace_empirical");
    free_events();
}

Test(run_noise, norms_of_another_number_of_groups_are_refused) {
    struct block *block = new_snapshot(1, 1, 0);
    block->submission.batch_size = 10.0;
    add_squared_norm(block, 2.0, 428.0, group_norms);
    block->squared_norms[0].n_per_group = 2;
    cr_expect_eq(submit(block), -EBADMSG);
    cr_expect_str_eq(error.field, "squared_norms.per_group");
    cr_expect_not_null(strstr(error.text, "is 2"), "%s", error.text);
    cr_expect_not_null(strstr(error.text, " 3"), "%s", error.text);
}

// ---- The window -----------------------------------------------------------------------------------------------------

Test(run_noise, a_window_has_a_value_once_it_is_whole) {
    for (uint64_t t = 1; t <= 8; t++)
        take(t, t % 2 ? 1.0f : -2.0f, NULL);
    finish(9);
    for (int64_t step = 1; step <= 8; step++) {
        if (step < 3) {
            expect_none(step, "subspace/effective_rank");
            expect_none(step, "subspace/top_share");
        } else {
            expect_value(step, "subspace/effective_rank", 1.0);
            expect_value(step, "subspace/top_share", 1.0);
        }
    }
    free_events();
}

static void step_10(struct block *block) {
    block->submission.step += 2; // two steps were not seen
}

Test(run_noise, a_gap_empties_the_window) {
    for (uint64_t t = 1; t <= 8; t++)
        take(t, 1.0f, t > 4 ? step_10 : NULL);
    finish(9);
    static const struct {
        int64_t step;
        bool has;
    } cases[] = {{3, true}, {4, true}, {7, false}, {8, false}, {9, true}, {10, true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_expect_eq(find(cases[i].step, "subspace/top_share") != NULL, cases[i].has, "step %" PRId64, cases[i].step);
    free_events();
}

// Group 1 is 0 in the window's middle gradient: K is of (1, 1, 1), (1, 0, 1), (1, 1, 1) with 5, 40 and 3 elements.
Test(run_noise, an_absent_group_counts_as_0) {
    take(1, 1.0f, NULL);
    take(2, 1.0f, without_group_1);
    take(3, 1.0f, NULL);
    finish(4);
    double trace = 48 + 8 + 48, squares = 4.0 * 48 * 48 + 8.0 * 8 + 4.0 * 8 * 8;
    expect_value(3, "subspace/effective_rank", trace * trace / squares);
    free_events();
}

Test(run_noise, gradients_of_0_have_no_directions) {
    for (uint64_t t = 1; t <= 3; t++)
        take(t, 0.0f, NULL);
    take(4, 1.0f, NULL);
    finish(5);
    expect_none(3, "subspace/effective_rank");
    expect_value(4, "subspace/effective_rank", 1.0);
    free_events();
}

Test(run_noise, a_window_with_a_square_that_overflows_has_no_value) {
    for (uint64_t t = 1; t <= 5; t++)
        take(t, t == 2 ? 3e38f : 1.0f, NULL);
    finish(6);
    for (int64_t step = 2; step <= 4; step++)
        expect_none(step, "subspace/top_share");
    expect_value(5, "subspace/top_share", 1.0);
    free_events();
}

static size_t count_tensors(const char *tag, const int64_t *steps, size_t n) {
    size_t found = 0;
    for (size_t i = 0; i < n_events; i++) {
        const Tensorboard__Summary__Value *value = value_in(events[i], tag);
        if (!value)
            continue;
        cr_expect(found < n && events[i]->step == steps[found], "%s at step %" PRId64, tag, events[i]->step);
        cr_expect_eq(value->value_case, TENSORBOARD__SUMMARY__VALUE__VALUE_TENSOR);
        cr_expect(value->metadata && value->metadata->summary_description, "%s", tag);
        found++;
    }
    return found;
}

Test(run_noise, histograms_and_images_come_on_their_schedule) {
    static const int64_t histograms[] = {3, 4, 5, 6, 8, 10, 12, 16, 20}, images[] = {2, 4, 8, 16};
    for (uint64_t t = 1; t <= 20; t++)
        take(t, (float)t, NULL);
    finish(21);
    cr_expect_eq(count_tensors("subspace/eigenvalues", histograms, 9), 9);
    cr_expect_eq(count_tensors("coherence/cosine_matrix", images, 4), 4);
    free_events();
}
