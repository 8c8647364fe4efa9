// What a run writes when a rule has an onset or a clearing: one text each, at its step, thinned or not.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alert_text.h"
#include "run_rig.h"

TestSuite(run_alerts, .init = start_small, .fini = free_run);

static uint64_t sequence;
static uint32_t slot;

// A step whose elements are all `value` but for the last group's, which are `last`.
static void take(int64_t step, float value, float last, bool applied, bool last_present) {
    uint64_t elements = run->open_run->elements;
    slot = (slot + 1) % 4;
    fill_slot(slot, value);
    float *slot_elements = gd_memory_slot(&run->memory, slot);
    for (uint64_t i = 0; i < run->open_run->groups[GROUPS - 1].numel; i++)
        slot_elements[elements - 1 - i] = last;
    struct block *block = new_snapshot(++sequence, step, slot);
    block->submission.applied = applied;
    if (!last_present) {
        block->bitmap[0] = (1 << (GROUPS - 1)) - 1;
        block->submission.groups_present = block->bitmap;
        block->submission.groups_present_bytes = 1;
    }
    submit_good(block);
    work();
}

static const Tensorboard__TensorProto *text_at(const char *tag, int64_t step, const Tensorboard__Event **ret_event) {
    const Tensorboard__TensorProto *found = NULL;
    for (size_t i = 0; i < n_events; i++) {
        const Tensorboard__Summary__Value *value = value_in(events[i], tag);
        if (!value || events[i]->step != step)
            continue;
        cr_expect_null(found, "%s at step %" PRId64 " comes twice", tag, step);
        cr_assert_eq(value->value_case, TENSORBOARD__SUMMARY__VALUE__VALUE_TENSOR);
        cr_expect_str_eq(value->metadata->plugin_data->plugin_name, "text");
        cr_expect_gt(strlen(value->metadata->summary_description), 20);
        found = value->tensor;
        *ret_event = events[i];
    }
    return found;
}

static void expect_text(const char *tag, int64_t step, const char *text) {
    const Tensorboard__Event *event;
    const Tensorboard__TensorProto *tensor = text_at(tag, step, &event);
    cr_assert(tensor, "no %s at step %" PRId64, tag, step);
    cr_assert_eq(tensor->n_string_val, 1);
    cr_expect(tensor->string_val[0].len == strlen(text) && memcmp(tensor->string_val[0].data, text, strlen(text)) == 0,
              "%s at step %" PRId64 ": %.*s", tag, step, (int)tensor->string_val[0].len,
              (const char *)tensor->string_val[0].data);
    cr_expect_eq(event->wall_time, 1700000000.0 + (double)step);
}

static void end(void) {
    submit_close(++sequence);
    read_events();
}

Test(run_alerts, an_onset_and_a_clearing_are_texts_at_their_steps) {
    for (int64_t step = 1; step <= 25; step++)
        take(step, 1.0f, step == 3 || step == 5 ? INFINITY : 1.0f, true, true);
    end();
    cr_expect_eq(count_values("alerts/non_finite", NULL, NULL), 2);
    expect_text("alerts/non_finite", 3,
                "Step 3: 3 elements of the gradient are NaN or infinite, above 0, the first of them in `group2`.");
    expect_text("alerts/non_finite", 21,
                "Step 21: over; the gradient has been finite for 16 steps (it began at step 3 with `group2`).");
    free_events();
}

Test(run_alerts, steps_that_thinning_leaves_out_are_judged_and_told) {
    for (int64_t step = 10001; step <= 10025; step++)
        take(step, 1.0f, step == 10003 ? NAN : 1.0f, true, true);
    end();
    expect_text("alerts/non_finite", 10003,
                "Step 10003: 3 elements of the gradient are NaN or infinite, above 0, the first of them in "
                "`group2`.");
    expect_text("alerts/non_finite", 10019,
                "Step 10019: over; the gradient has been finite for 16 steps (it began at step 10003 with `group2`).");
    free_events();
}

Test(run_alerts, a_group_of_zeros_is_told_after_the_steps_it_was_there) {
    run->open_run->thresholds.zero_group_steps = 5;
    run->open_run->thresholds.norm_spike_sd = (double)INFINITY;
    for (int64_t step = 1; step <= 40; step++) // there in 1, 3, 5, 7 and 9; it learns again from 21 on
        take(step, 1.0f, step < 20 ? 0.0f : 1.0f, true, step % 2 == 1);
    end();
    cr_expect_eq(count_values("alerts/zero_group", NULL, NULL), 2);
    expect_text("alerts/zero_group", 9,
                "Step 9: the gradient of `group2` has been all zero for 5 steps, the threshold is 5.");
    expect_text("alerts/zero_group", 36,
                "Step 36: over; no group has been all zero for 16 steps (it began at step 9 with `group2`).");
    free_events();
}

Test(run_alerts, a_healthy_run_has_none) {
    for (int64_t step = 1; step <= 50; step++)
        take(step, 1.0f + 0.01f * (float)(step % 7), 1.0f, true, true);
    end();
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++)
        cr_expect_eq(count_values(gd_alert_tag(rule).name, NULL, NULL), 0, "%s", gd_alert_rule_name(rule));
    free_events();
}

// ---- Texts ----------------------------------------------------------------------------------------------------------

static void expect_quoted(const char *name, const char *quoted) {
    char text[GD_ALERT_TEXT_BYTES], longest[GRADIENTD_NAME_BYTES_MAX + 1];
    const struct gd_alert alert = {.step = INT64_MAX,
                                   .onset_step = INT64_MAX,
                                   .value = 18446744073709551615.0,
                                   .limit = 4294967295.0,
                                   .group = 1,
                                   .onset = 1};
    snprintf(longest, sizeof(longest), "%s", name);
    free(run->open_run->groups[1].name);
    run->open_run->groups[1].name = strdup(longest);
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++)
        for (int onset = 0; onset < 2; onset++) {
            struct gd_alert turned = alert;
            turned.onset = (uint32_t)onset;
            size_t bytes = gd_alert_format(rule, &turned, run->open_run, text);
            cr_expect_eq(bytes, strlen(text));
            bool names = !onset || rule == GD_ALERT_NON_FINITE || rule == GD_ALERT_ZERO_GROUP;
            cr_expect_eq(strstr(text, quoted) != NULL, names, "%s", text);
        }
}

static void append_all(uint32_t onset) {
    static uint8_t data[64 << 10];
    struct gd_record_buffer buffer = {.data = data, .capacity = sizeof(data)};
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++) {
        char text[GD_ALERT_TEXT_BYTES];
        const struct gd_alert turned = {.step = INT64_MAX,
                                        .onset_step = INT64_MAX,
                                        .value = -1.797693e308,
                                        .limit = -1.797693e308,
                                        .group = 1,
                                        .onset = onset};
        struct gd_alert counted = turned; // those count, so they are no such numbers
        if (rule == GD_ALERT_NON_FINITE || rule == GD_ALERT_ZERO_GROUP)
            counted.value = counted.limit = 18446744073709551615.0;
        size_t bytes = gd_alert_format(rule, &counted, run->open_run, text);
        gd_event_append_text(&buffer, 1.7e9, INT64_MAX, gd_alert_tag(rule), text, bytes);
    }
    cr_expect_leq(buffer.used, gd_alert_records_max(), "%zu", buffer.used);
}

Test(run_alerts, the_longest_texts_are_within_their_bound) {
    char backticks[GRADIENTD_NAME_BYTES_MAX + 1] = "";
    memset(backticks, '`', sizeof(backticks) - 1);
    free(run->open_run->groups[1].name);
    run->open_run->groups[1].name = strdup(backticks);
    append_all(1);
    append_all(0);
}

Test(run_alerts, a_groups_name_is_no_markup) {
    char backticks[GRADIENTD_NAME_BYTES_MAX + 1], quoted[1024];
    expect_quoted("a*b_c<b>", "`a*b_c<b>`");
    expect_quoted("a`b", "`` a`b ``");
    expect_quoted("``", "``` `` ```");
    expect_quoted("l\xc3\xa4yer", "`l\xc3\xa4yer`");
    memset(backticks, '`', sizeof(backticks) - 1);
    backticks[sizeof(backticks) - 1] = '\0';
    memset(quoted, '`', 256);
    snprintf(quoted + 256, sizeof(quoted) - 256, " %s `%s", backticks, backticks);
    expect_quoted(backticks, quoted);
}
