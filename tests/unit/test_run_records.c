// What a run writes: its values in the order of its submissions, thinned or not.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>

#include "run_rig.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

TestSuite(run_records, .init = start_small, .fini = free_run);

// ---- Records --------------------------------------------------------------------------------------------------------

Test(run_records, submissions_are_committed_in_their_order) {
    for (uint32_t i = 0; i < 6; i++) {
        struct block *block = i % 2 ? new_block(GD_SUBMISSION_SCALARS, i + 1, i) : new_snapshot(i + 1, i, i / 2);
        add_scalar(block, i % 2 ? "valid" : "train", (float)i);
        submit_good(block);
    }
    submit_close(7);
    cr_expect_eq(run->queued, 7);
    cr_expect_eq(work(), 7);
    cr_expect_eq(run->queued, 0);
    cr_expect_eq(run->state->sequence, 7);
    read_events();
    drop_tensors();
    cr_assert_eq(n_events, 2 + 6 + 1);
    for (uint32_t i = 0; i < 6; i++) {
        const Tensorboard__Summary__Value *value = value_in(events[2 + i], i % 2 ? "valid" : "train");
        cr_assert_not_null(value, "event %u", i);
        cr_expect(value->simple_value == (float)i && events[2 + i]->step == i, "event %u", i);
        cr_expect_eq(value_in(events[2 + i], "gradient/norm") != NULL, i % 2 == 0, "event %u", i);
    }
    free_events();
}

Test(run_records, values_are_those_of_the_gradient_sent) {
    const float sent[] = {2.0f, -1.0f, 0.5f};
    for (uint32_t i = 0; i < ARRAY_SIZE(sent); i++) {
        fill_slot(i, sent[i]);
        submit_good(new_snapshot(i + 1, i + 1, i));
    }
    submit_close(4);
    read_events();
    drop_tensors();
    const struct {
        const char *tag;
        int64_t step;
        float value;
    } expected[] = {
        {"gradient/max_abs", 1, 2.0f},
        {"gradient/max_abs", 2, 1.0f},
        {"gradient/max_abs", 3, 0.5f},
        {"coherence/cosine_lag1", 2, -1.0f},
        {"coherence/ratio_lag1", 2, -2.0f},
        {"coherence/cosine_lag1", 3, -1.0f},
        {"coherence/ratio_lag2", 3, 4.0f},
        {"coherence/mu", 3, -2.0f},
        {"coherence/tolerable_staleness", 3, 0.0f},
        {"adam/step_size_min", 1, 0.005f},
    };
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        const Tensorboard__Summary__Value *value = value_in(events[1 + expected[i].step], expected[i].tag);
        cr_assert_not_null(value, "%s at step %" PRId64, expected[i].tag, expected[i].step);
        cr_expect(fabsf(value->simple_value - expected[i].value) <= 1e-6f * fabsf(expected[i].value),
                  "%s at step %" PRId64 " is %g, not %g", expected[i].tag, expected[i].step,
                  (double)value->simple_value, (double)expected[i].value);
    }
    cr_expect_null(value_in(events[2], "coherence/cosine_lag1"));
    cr_expect_null(value_in(events[3], "coherence/cosine_lag2"));
    free_events();
}

Test(run_records, the_first_value_of_each_tag_carries_its_metadata) {
    for (uint32_t i = 0; i < 4; i++) {
        struct block *block = new_snapshot(i + 1, i + 1, i);
        fill_slot(i, 1.0f);
        add_scalar(block, i % 2 ? "b" : "a", 1.0f);
        submit_good(block);
        work();
    }
    submit_close(5);
    read_events();
    drop_tensors(); // each of which has its own
    for (size_t e = 0; e < n_events; e++)
        for (size_t i = 0; events[e]->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY && i < events[e]->summary->n_value;
             i++) {
            const Tensorboard__Summary__Value *value = events[e]->summary->value[i];
            bool first = true;
            for (size_t before = 0; before < e; before++)
                first &= !value_in(events[before], value->tag);
            cr_expect_eq(value->metadata != NULL, first, "%s in event %zu", value->tag, e);
        }
    cr_expect_eq(count_values("a", NULL, NULL), 2);
    free_events();
}

// ---- Thinning -------------------------------------------------------------------------------------------------------

// Steps 9998 to 10005 with a gradient that spikes at `spike`, and a value of the user's at each.
static void run_across_10000(int64_t last, int64_t spike) {
    uint64_t sequence = 0;
    for (int64_t step = 9998; step <= last; step++) {
        uint32_t slot = (uint32_t)(step % 4);
        fill_slot(slot, step == spike ? 8.0f : 1.0f);
        struct block *block = new_snapshot(++sequence, step, slot);
        add_scalar(block, "train/loss", (float)step);
        submit_good(block);
        work();
    }
    submit_close(++sequence);
    read_events();
}

Test(run_records, thinned_values_are_written_once_a_window_and_at_the_end) {
    int64_t step = 0;
    run_across_10000(10005, 0);
    cr_expect_eq(count_values("gradient/norm", &step, NULL), 2 + 1 + 1); // 9998, 9999, 10000 and the last
    cr_expect_eq(step, 10005);
    cr_expect_eq(count_values("train/loss", &step, NULL), 8);
    cr_expect_eq(step, 10005);
    cr_expect_eq(count_session_logs(TENSORBOARD__SESSION_LOG__STATUS__STOP), 1);
    cr_expect_eq(events[n_events - 1]->what_case, TENSORBOARD__EVENT__WHAT_SESSION_LOG);
    free_events();
}

Test(run_records, steps_skipped_after_the_last_snapshot_show_at_the_end) {
    int64_t step = 0;
    float value = 0.0f;
    submit_good(new_snapshot(1, 1, 0));
    struct block *block = new_block(GD_SUBMISSION_CLOSE, 2, 4);
    block->submission.skipped = 3;
    block->submission.has_optimizer_step = true;
    block->submission.optimizer_step = 4;
    submit_good(block);
    work();
    read_events();
    cr_expect_eq(count_values("gradientd/observed_fraction", &step, &value), 2);
    cr_expect_eq(step, 4);
    cr_expect_eq(value, 0.25f);
    free_events();
}

Test(run_records, what_is_written_already_is_not_written_at_the_end) {
    int64_t step = 0;
    run_across_10000(10010, 0);
    cr_expect_eq(count_values("gradient/norm", &step, NULL), 2 + 1 + 1); // 9998, 9999, 10000, 10010
    cr_expect_eq(step, 10010);
    free_events();
}

Test(run_records, a_spike_between_two_points_shows_in_the_next) {
    float maximum = 0.0f, norm = 0.0f;
    run_across_10000(10010, 10004);
    count_values("gradient/max_abs", NULL, &maximum);
    count_values("gradient/norm", NULL, &norm);
    cr_expect_eq(maximum, 8.0f);
    cr_expect(norm < 8.0f, "the norm is the step's own");
    free_events();
}

Test(run_records, a_spike_outlasts_a_step_without_any_group) {
    const int64_t steps[] = {20000, 20001, 20010, 20020}; // all but the second begin a window
    int64_t step = 0;
    float value = 0.0f;
    for (uint32_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct block *block = new_snapshot(i + 1, steps[i], i);
        fill_slot(i, i == 1 ? 100.0f : 1.0f);
        if (i == 2) { // no group is present
            block->submission.groups_present = block->bitmap;
            block->submission.groups_present_bytes = 1;
        }
        submit_good(block);
        work();
    }
    submit_close(5);
    read_events();
    cr_expect_eq(count_values("gradient/norm_max", &step, &value), 2);
    cr_expect_eq(step, 20020);
    cr_expect_gt(value, 100.0f);
    free_events();
}

Test(run_records_from_scratch, without_thinning_every_step_is_written, .fini = free_run) {
    struct gd_open_run *open_run = small_open_run();
    open_run->thinning = false;
    start(open_run);
    run_across_10000(10005, 0);
    cr_expect_eq(count_values("gradient/norm", NULL, NULL), 8);
    cr_expect_eq(count_values("train/loss", NULL, NULL), 8);
    free_events();
}
