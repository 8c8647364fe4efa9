// A run's phases, what it takes and refuses, and when its slots come back, through its public functions.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "run_rig.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

TestSuite(run, .init = start_small, .fini = free_run);
TestSuite(run_from_scratch);

// ---- Phases ---------------------------------------------------------------------------------------------------------

Test(run_from_scratch, a_run_waits_for_its_memory, .fini = free_run) {
    new_run(small_open_run());
    cr_expect_eq(run->phase, GD_RUN_LAID_OUT);
    cr_expect_eq(gd_run_next(run), GD_RUN_WAIT);
    cr_expect_eq(submit(new_snapshot(1, 1, 0)), -EBADMSG);
    cr_expect(error.code == GD_ERROR_PROTOCOL && strcmp(error.field, "message") == 0, "%s", error.text);
    gd_run_stop(run, true); // a daemon that stops has nothing to wait for here
    cr_expect_eq(run->phase, GD_RUN_LAID_OUT);
}

Test(run, close_run_ends_an_active_run) {
    cr_expect_eq(run->phase, GD_RUN_ACTIVE);
    cr_expect_eq(gd_run_next(run), GD_RUN_WAIT);
    submit_close(1);
    cr_expect_eq(run->phase, GD_RUN_CLOSING);
    cr_expect_eq(gd_run_next(run), GD_RUN_BEGIN);
    cr_expect_eq(work(), 1);
    cr_expect_eq(gd_run_next(run), GD_RUN_END);
    gd_run_end(run);
    cr_expect_eq(run->phase, GD_RUN_ENDED);
    cr_expect_eq(gd_run_next(run), GD_RUN_WAIT);
}

Test(run, a_stopped_run_finishes_its_queue_first) {
    for (int leaving = 0; leaving <= 1; leaving++) {
        submit_good(new_snapshot(1, 1, 0));
        submit_good(new_snapshot(2, 2, 1));
        gd_run_stop(run, leaving);
        gd_run_stop(run, !leaving); // the first reason stands
        cr_expect_eq(run->phase, leaving ? GD_RUN_LEAVING : GD_RUN_CLOSING);
        cr_expect_eq(gd_run_next(run), GD_RUN_BEGIN);
        cr_expect_eq(work(), 2);
        cr_expect_eq(gd_run_next(run), GD_RUN_END);
        gd_run_end(run);
        cr_expect_eq(run->state->snapshots, 2);
        if (leaving == 0) {
            free_run();
            start_small();
        }
    }
}

Test(run, is_full_by_number_or_by_bytes) {
    enum { BLOCK = 1 << 20 };
    for (uint64_t i = 1; i <= GD_RUN_QUEUE_MAX; i++) {
        cr_assert_not(gd_run_is_full(run), "at %d", (int)i);
        submit_good(new_block(GD_SUBMISSION_SCALARS, i, (int64_t)i));
    }
    cr_assert(gd_run_is_full(run));
    cr_assert_eq(work(), GD_RUN_QUEUE_MAX);

    for (uint64_t i = 1; i <= GD_RUN_QUEUE_BYTES_MAX / BLOCK; i++) {
        cr_assert_not(gd_run_is_full(run), "at %d MiB", (int)i);
        struct block *block = new_block(GD_SUBMISSION_SCALARS, GD_RUN_QUEUE_MAX + i, (int64_t)i);
        block->submission.bytes = BLOCK;
        submit_good(block);
    }
    cr_assert(gd_run_is_full(run));
    work();
    cr_assert_eq(run->queued_bytes, 0);
}

Test(run, nothing_is_taken_after_the_end) {
    submit_close(1);
    for (int ended = 0; ended <= 1; ended++) {
        cr_expect_eq(submit(new_snapshot(2, 1, 0)), -EBADMSG);
        cr_expect(error.code == GD_ERROR_PROTOCOL && strcmp(error.field, "message") == 0, "%s", error.text);
        if (!ended) {
            work();
            gd_run_end(run);
        }
    }
}

Test(run_from_scratch, end_records_are_written_once) {
    const struct {
        const char *what;
        bool close, leaving;
        size_t stops;
    } cases[] = {
        {"CloseRun", true, false, 1},
        {"CloseRun, then the trainer is gone", true, true, 1},
        {"the trainer is gone", false, false, 1},
        {"the daemon stops", false, true, 0}, // the file stays open-ended
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        start_small();
        submit_good(new_snapshot(1, 7, 0));
        if (cases[i].close)
            submit_close(2);
        gd_run_stop(run, cases[i].leaving);
        read_events();
        cr_expect_eq(count_session_logs(TENSORBOARD__SESSION_LOG__STATUS__STOP), cases[i].stops, "%s", cases[i].what);
        cr_expect_eq(count_session_logs(TENSORBOARD__SESSION_LOG__STATUS__START), 1, "%s", cases[i].what);
        const Tensorboard__Event *last = events[n_events - 1];
        cr_expect_eq(last->what_case == TENSORBOARD__EVENT__WHAT_SESSION_LOG, cases[i].stops, "%s", cases[i].what);
        cr_expect(last->step == 7 && last->wall_time == 1700000007.0, "%s: the last snapshot's times", cases[i].what);
        free_events();
        free_run();
    }
}

Test(run, a_file_begins_with_version_and_start) {
    submit_close(1);
    read_events();
    cr_assert_eq(n_events, 3);
    cr_expect_eq(events[0]->what_case, TENSORBOARD__EVENT__WHAT_FILE_VERSION);
    cr_expect_str_eq(events[0]->file_version, "brain.Event:2");
    cr_expect_eq(events[0]->wall_time, 1700000000.5);
    cr_expect_eq(events[1]->session_log->status, TENSORBOARD__SESSION_LOG__STATUS__START);
    cr_expect_eq(events[1]->step, 1);
    cr_expect_eq(events[2]->session_log->status, TENSORBOARD__SESSION_LOG__STATUS__STOP);
    cr_expect_eq(events[2]->wall_time, 1700000000.5); // without a snapshot, the run's own
    free_events();
}

// ---- Attaching ------------------------------------------------------------------------------------------------------

Test(run_from_scratch, a_failed_attachment_leaves_no_descriptor_open) {
    const struct {
        const char *what;
        bool bad_memory, bad_file;
        const char *field;
    } cases[] = {{"memory", true, false, "memory"},
                 {"file", false, true, "event_file"},
                 {"both", true, true, "memory"}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int before = count_fds();
        new_run(small_open_run());
        if (cases[i].bad_memory) {
            close(memory_fd);
            memory_fd = new_memfd(run->layout.total_bytes, 0);
        }
        if (cases[i].bad_file) {
            close(event_fd);
            event_fd = new_file(O_RDONLY);
        }
        cr_expect_eq(attach(), -EBADMSG, "%s", cases[i].what);
        cr_expect_str_eq(error.field, cases[i].field, "%s: %s", cases[i].what, error.text);
        free_run();
        cr_expect(fds_return_to(before), "%s", cases[i].what);
    }
}

Test(run_from_scratch, a_whole_run_leaves_no_descriptor_open) {
    int before = count_fds();
    start_small();
    submit_good(new_snapshot(1, 1, 0));
    free_run();
    cr_expect_eq(count_fds(), before);
}

// Its memory has no descriptor yet, which is not descriptor 0.
Test(run_from_scratch, freeing_a_run_without_memory_closes_nothing) {
    int before = count_fds();
    struct gd_run *unattached;
    cr_assert_eq(gd_run_new_consume(small_open_run(), &unattached), 0);
    gd_run_free(unattached);
    gd_run_free(NULL);
    cr_expect_eq(count_fds(), before);
}

// ---- What a submission must be --------------------------------------------------------------------------------------

// Committed: sequence 1, step 5, optimizer_step 10, slot 1, tag "used" at step 5.
static void start_with_one_snapshot(void) {
    start_small();
    struct block *block = new_snapshot(1, 5, 1);
    block->submission.has_optimizer_step = true;
    block->submission.optimizer_step = 10;
    add_scalar(block, "used", 1.0f);
    submit_good(block);
}

static struct block *next_snapshot(void) {
    return new_snapshot(2, 6, 2);
}

static void set_sequence(struct block *block, uint64_t value) {
    block->submission.sequence = value;
}

static void set_step(struct block *block, uint64_t value) {
    block->submission.step = (int64_t)value;
}

static void set_slot(struct block *block, uint64_t value) {
    block->submission.slot = (uint32_t)value;
}

static void set_rates(struct block *block, uint64_t value) {
    block->submission.n_rates = (uint32_t)value;
}

static void set_bitmap_bytes(struct block *block, uint64_t value) {
    block->submission.groups_present = block->bitmap;
    block->submission.groups_present_bytes = value;
}

static void set_optimizer_step(struct block *block, uint64_t value) {
    block->submission.has_optimizer_step = true;
    block->submission.optimizer_step = value;
}

static void set_optimizer_step_not_applied(struct block *block, uint64_t value) {
    set_optimizer_step(block, value);
    block->submission.applied = false;
}

static void use_own_tag(struct block *block, uint64_t value) {
    (void)value;
    add_scalar(block, "adam/A", 1.0f);
}

static void use_tag_at(struct block *block, uint64_t step) {
    block->submission.kind = GD_SUBMISSION_SCALARS;
    block->submission.step = (int64_t)step;
    add_scalar(block, "used", 1.0f);
}

static void use_tag_twice(struct block *block, uint64_t value) {
    (void)value;
    add_scalar(block, "twice", 1.0f);
    add_scalar(block, "twice", 2.0f);
}

static const struct {
    const char *what;
    void (*change)(struct block *block, uint64_t value);
    uint64_t value;
    const char *field, *text, *limit; // field NULL: accepted
} submissions[] = {
    {"sequence, the next", set_sequence, 2, NULL, "", ""},
    {"sequence, again", set_sequence, 1, "sequence", "is 1", "the next one, 2"},
    {"sequence, skipping", set_sequence, 3, "sequence", "is 3", "the next one, 2"},
    {"sequence 0", set_sequence, 0, "sequence", "is 0", "the next one, 2"},
    {"step, the next", set_step, 6, NULL, "", ""},
    {"step, skipping", set_step, 1000000, NULL, "", ""},
    {"step, again", set_step, 5, "step", "is 5", "above the last one, 5"},
    {"step, back", set_step, 4, "step", "is 4", "above the last one, 5"},
    {"slot, the last", set_slot, 3, NULL, "", ""},
    {"slot beyond", set_slot, 4, "slot", "is 4", "number of slots, 4"},
    {"slot far beyond", set_slot, UINT32_MAX, "slot", "4294967295", "number of slots, 4"},
    {"slot in use", set_slot, 1, "slot", "is 1", "in use"},
    {"no rates", set_rates, 0, "parameter_groups", "is 0", "as many as OpenRun has, 1"},
    {"too many rates", set_rates, 2, "parameter_groups", "is 2", "as many as OpenRun has, 1"},
    {"bitmap", set_bitmap_bytes, 1, NULL, "", ""},
    {"empty bitmap", set_bitmap_bytes, 0, "groups_present", "is 0", "groups need, 1"},
    {"bitmap too long", set_bitmap_bytes, 2, "groups_present", "is 2", "groups need, 1"},
    {"optimizer_step, the next", set_optimizer_step, 11, NULL, "", ""},
    {"optimizer_step, skipping", set_optimizer_step, UINT64_MAX, NULL, "", ""},
    {"optimizer_step, again", set_optimizer_step, 10, "optimizer_step", "is 10", "last applied one, 10"},
    {"optimizer_step, back", set_optimizer_step, 1, "optimizer_step", "is 1", "last applied one, 10"},
    {"optimizer_step of a step not applied", set_optimizer_step_not_applied, 10, NULL, "", ""},
    {"a tag of the daemon's own", use_own_tag, 0, "scalars.tag", "adam/A", "writes itself"},
    {"a tag, later", use_tag_at, 6, NULL, "", ""},
    {"a tag at its last step", use_tag_at, 5, "step", "step 5", "last one, 5"},
    {"a tag twice in a step", use_tag_twice, 0, "step", "step 6", "last one, 6"},
};

Test(run_from_scratch, each_bad_field_of_a_submission_is_named) {
    for (size_t i = 0; i < ARRAY_SIZE(submissions); i++) {
        start_with_one_snapshot();
        struct block *block = next_snapshot();
        submissions[i].change(block, submissions[i].value);
        int result = submit(block);
        if (!submissions[i].field) {
            cr_expect_eq(result, 0, "%s: %s", submissions[i].what, error.text);
        } else {
            cr_expect_eq(result, -EBADMSG, "%s", submissions[i].what);
            cr_expect_eq(error.code, GD_ERROR_INVALID, "%s", submissions[i].what);
            cr_expect_str_eq(error.field, submissions[i].field, "%s: %s", submissions[i].what, error.text);
            cr_expect_not_null(strstr(error.text, submissions[i].text), "%s: %s", submissions[i].what, error.text);
            cr_expect_not_null(strstr(error.text, submissions[i].limit), "%s: %s", submissions[i].what, error.text);
            cr_expect_eq(run->received_sequence, 1, "%s", submissions[i].what);
            cr_expect_eq(run->queued, 1, "%s", submissions[i].what);
            // A refused submission leaves no trace that would refuse the right one.
            cr_expect_eq(submit(next_snapshot()), 0, "%s: %s", submissions[i].what, error.text);
        }
        free_run();
    }
}

// SessionLog START tells readers from which step on to forget; it must be true.
Test(run_from_scratch, the_first_step_is_the_one_announced, .fini = free_run) {
    const struct {
        int64_t step;
        uint64_t skipped;
        bool accepted;
    } cases[] = {{9, 0, false}, {9, 1, false}, {11, 0, false}, {11, 1, true}};

    struct gd_open_run *open_run = small_open_run();
    open_run->first_step = 10;
    start(open_run);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct block *block = new_snapshot(1, cases[i].step, 0);
        block->submission.skipped = cases[i].skipped;
        int result = gd_run_submit_consume(run, &block->submission, &error);
        cr_expect_eq(result, cases[i].accepted ? 0 : -EBADMSG, "case %zu", i);
        cr_expect(cases[i].accepted || strstr(error.text, "first_step, 10"), "%s", error.text);
    }
}

Test(run_from_scratch, a_groups_lag_is_below_the_first_optimizer_step, .fini = free_run) {
    struct gd_open_run *open_run = small_open_run();
    open_run->groups[2].step_lag = 3;
    start(open_run);
    struct block *block = new_snapshot(1, 1, 0);
    set_optimizer_step(block, 3);
    cr_expect_eq(submit(block), -EBADMSG);
    cr_expect_str_eq(error.field, "group.step_lag");
    cr_expect(strstr(error.text, "is 3"), "%s", error.text);
    block = new_snapshot(1, 1, 0);
    set_optimizer_step(block, 4);
    cr_expect_eq(submit(block), 0, "%s", error.text);
}

Test(run, the_optimizer_step_counts_applied_snapshots) {
    const struct {
        bool applied;
        uint64_t stated, received; // stated 0: not
    } steps[] = {{true, 0, 1}, {false, 0, 1}, {true, 0, 2}, {true, 7, 7}, {false, 99, 7}, {true, 0, 8}};

    for (uint32_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct block *block = new_snapshot(i + 1, i + 1, i % 4);
        if (steps[i].stated)
            set_optimizer_step(block, steps[i].stated);
        block->submission.applied = steps[i].applied;
        submit_good(block);
        work();
        cr_expect_eq(run->received_optimizer_step, steps[i].received, "step %u", i + 1);
        cr_expect_eq(run->state->adam.optimizer_step, steps[i].received, "step %u", i + 1);
    }
    cr_expect_eq(run->state->adam.applied, 4);
}

// ---- Slots ----------------------------------------------------------------------------------------------------------

static uint64_t slot_word(uint32_t slot) {
    const uint64_t *words = (const void *)(run->memory.base + run->layout.slot_words_offset);
    return words[slot];
}

// With max_lag 2 a slot is history while it may be lag 1 or 2, and comes back with the commit of step + 2.
Test(run, a_slot_comes_back_when_its_last_lag_has_passed) {
    for (uint32_t step = 1; step <= 20; step++) {
        uint32_t slot = (step - 1) % 4;
        submit_good(new_snapshot(step, step, slot));
        cr_expect_eq(run->slot_use[slot], GD_SLOT_TAKEN, "step %u", step);
        work();
        for (uint32_t back = 0; back < 4 && back < step; back++) {
            uint32_t used = step - back; // the step that used this slot last
            uint32_t old_slot = (used - 1) % 4;
            bool is_free = back >= 2;
            cr_expect_eq(slot_word(old_slot) >= used, is_free, "step %u: slot of step %u has word %lu", step, used,
                         (unsigned long)slot_word(old_slot));
            cr_expect_eq(run->slot_use[old_slot], is_free ? GD_SLOT_FREE : GD_SLOT_TAKEN, "step %u: slot of step %u",
                         step, used);
        }
    }
}

Test(run, skipped_steps_bring_several_slots_back) {
    submit_good(new_snapshot(1, 1, 0));
    submit_good(new_snapshot(2, 2, 1));
    submit_good(new_snapshot(3, 10, 2));
    work();
    cr_expect(slot_word(0) == 3 && slot_word(1) == 3);
    cr_expect_eq(run->slot_use[2], GD_SLOT_TAKEN);
}

Test(run, a_slot_in_flight_cannot_be_sent_again) {
    submit_good(new_snapshot(1, 1, 0));
    cr_expect_eq(submit(new_snapshot(2, 2, 0)), -EBADMSG);
    cr_expect_str_eq(error.field, "slot");
    work();
    cr_expect_eq(submit(new_snapshot(2, 2, 0)), -EBADMSG, "it is history now");
    submit_good(new_snapshot(2, 2, 1));
    submit_good(new_snapshot(3, 3, 2));
    work();
    cr_expect_eq(submit(new_snapshot(4, 4, 0)), 0, "%s", error.text);
}

Test(run_from_scratch, lags_count_strides, .fini = free_run) {
    struct gd_open_run *open_run = small_open_run();
    open_run->stride = 10;
    start(open_run);
    const int64_t steps[] = {10, 20, 25, 30};
    for (uint32_t i = 0; i < ARRAY_SIZE(steps); i++) {
        fill_slot(i, 1.0f);
        submit_good(new_snapshot(i + 1, steps[i], i));
        work();
        const uint32_t known[] = {0, 1, 0, 3};
        cr_expect_eq(run->input.known_lags, known[i], "step %" PRId64 ": lags %x", steps[i], run->input.known_lags);
    }
    cr_expect_eq(run->input.lag_slot[0], 1);
    cr_expect_eq(run->input.lag_slot[1], 0);
}

// With a stride of 10 and a snapshot every step, the lags' slots would all be taken for good after a few steps.
Test(run_from_scratch, snapshots_closer_than_a_stride_leave_a_slot_free, .fini = free_run) {
    struct gd_open_run *open_run = small_open_run();
    open_run->stride = 10;
    start(open_run);
    for (uint32_t step = 1; step <= 40; step++) {
        uint32_t slot = 0;
        while (slot < run->layout.slots && run->slot_use[slot] == GD_SLOT_TAKEN)
            slot++;
        cr_assert_lt(slot, run->layout.slots, "step %u", step);
        fill_slot(slot, 1.0f);
        submit_good(new_snapshot(step, step, slot));
        work();
    }
}

// ---- Waiters --------------------------------------------------------------------------------------------------------

Test(run, a_commit_reports_a_waiting_client) {
    uint32_t *waiting = (void *)(run->memory.base + run->layout.waiting_offset);
    for (uint32_t i = 0; i < 2; i++) {
        submit_good(new_block(GD_SUBMISSION_SCALARS, i + 1, i));
        *waiting = i;
        gd_run_begin(run, 1);
        gd_run_work(run, 0, 1);
        cr_expect_eq(gd_run_commit(run), i == 1);
        gd_run_finish(run, NULL);
    }
}
