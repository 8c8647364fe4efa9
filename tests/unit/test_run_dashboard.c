// What a run writes beside its scalars: when, once or on the schedule, and within the bound of a step.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "charts.h"
#include "dashboard.h"
#include "event_tensor.h"
#include "hparams.h"
#include "page.h"
#include "run_rig.h"
#include "shown.h"
#include "support.h"

TestSuite(run_dashboard, .init = start_small, .fini = free_run);

typedef Tensorboard__HParamsPluginData plugin_data;

static plugin_data *data_of(const char *tag) {
    const Tensorboard__Summary__Value *value = tensor_at(tag, 0);
    if (!value)
        return NULL;
    const ProtobufCBinaryData *content = &value->metadata->plugin_data->content;
    return tensorboard__hparams_plugin_data__unpack(NULL, content->len, content->data);
}

static size_t count_tensors(const char *tag) {
    size_t n = 0;
    for (size_t i = 0; i < n_tensors; i++)
        n += strcmp(tensors[i]->summary->value[0]->tag, tag) == 0;
    return n;
}

static const struct gd_histogram_bin *bins_at(const char *tag, int64_t step) {
    const Tensorboard__Summary__Value *value = tensor_at(tag, step);
    return value ? (const struct gd_histogram_bin *)(const void *)value->tensor->double_val : NULL;
}

// Snapshots 1 to n, each with a gradient of 2^-step.
static void take_steps(int64_t n) {
    for (int64_t step = 1; step <= n; step++) {
        fill_slot((uint32_t)(step % 4), 1.0f / (float)(1 << step));
        submit_good(new_snapshot((uint64_t)step, step, (uint32_t)(step % 4)));
        work();
    }
}

Test(run_dashboard, charts_and_page_come_first) {
    take_steps(1);
    submit_close(2);
    read_events();
    cr_assert_geq(n_tensors, 3);
    cr_expect_str_eq(tensors[0]->summary->value[0]->tag, GD_TAG_LAYOUT);
    cr_expect_str_eq(tensors[1]->summary->value[0]->tag, GD_TAG_PAGE);
    cr_expect_str_eq(tensors[2]->summary->value[0]->tag, GD_TAG_SESSION_START);
    uint8_t layout[GD_CHARTS_BYTES_MAX];
    char page[GD_PAGE_BYTES_MAX];
    uint32_t shown = GD_SHOWN_EFFECTIVE_STEP | GD_SHOWN_SECOND_MOMENT;
    cr_assert_eq(gd_shown(run->open_run), shown);
    const ProtobufCBinaryData *text = tensors[0]->summary->value[0]->tensor->string_val;
    cr_assert_eq(text->len, gd_charts_pack(shown, layout));
    cr_expect_arr_eq(text->data, layout, text->len);
    text = tensors[1]->summary->value[0]->tensor->string_val;
    cr_assert_eq(text->len, gd_page_write(shown, page));
    cr_expect_arr_eq(text->data, page, text->len);
    cr_expect_eq(tensors[1]->step, run->open_run->first_step);
    cr_expect_eq(tensors[0]->wall_time, run->open_run->wall_time);
    free_events();
}

Test(run_dashboard, hyperparameters_come_once) {
    take_steps(3);
    submit_close(4);
    read_events();
    cr_assert_eq(count_tensors(GD_TAG_SESSION_START), 1);
    plugin_data *start = data_of(GD_TAG_SESSION_START);
    cr_assert_not_null(start);
    cr_expect_eq(start->session_start_info->n_hparams, 4);
    cr_expect_eq(start->session_start_info->start_time_secs, 1700000000.5);
    cr_expect_eq(start->session_start_info->hparams[1]->value->number_value, 0.01);
    tensorboard__hparams_plugin_data__free_unpacked(start, NULL);
    free_events();
}

static void expect_status(bool failed, int status) {
    take_steps(2);
    struct block *close = new_block(GD_SUBMISSION_CLOSE, 3, 0);
    close->submission.failed = failed;
    submit_good(close);
    read_events();
    cr_assert_eq(count_tensors(GD_TAG_SESSION_END), 1);
    plugin_data *end = data_of(GD_TAG_SESSION_END);
    cr_assert_not_null(end);
    cr_expect_eq((int)end->session_end_info->status, status);
    cr_expect_eq(end->session_end_info->end_time_secs, 1700000002.0);
    tensorboard__hparams_plugin_data__free_unpacked(end, NULL);
    free_events();
}

Test(run_dashboard, success_is_told) {
    expect_status(false, 1);
}

Test(run_dashboard, failure_is_told) {
    expect_status(true, 2);
}

Test(run_dashboard, of_a_trainer_that_went_nothing_is_told) {
    take_steps(2);
    gd_run_stop(run, false);
    read_events();
    cr_expect_eq(count_session_logs(TENSORBOARD__SESSION_LOG__STATUS__STOP), 1);
    cr_expect_eq(count_tensors(GD_TAG_SESSION_START), 1);
    cr_expect_eq(count_tensors(GD_TAG_SESSION_END), 0);
    free_events();
}

Test(run_dashboard, a_run_without_a_snapshot_has_no_session) {
    submit_good(new_block(GD_SUBMISSION_SCALARS, 1, 1));
    submit_close(2);
    read_events();
    cr_expect_eq(n_tensors, 2);
    cr_expect_eq(count_tensors(GD_TAG_SESSION_END), 0);
    free_events();
}

Test(run_dashboard, histograms_follow_the_schedule) {
    take_steps(11);
    submit_close(12);
    read_events();
    for (int64_t step = 1; step <= 11; step++) {
        const struct gd_histogram_bin *bins = bins_at(GD_TAG_GRADIENT_HISTOGRAM, step);
        bool shown = step <= 6 || step == 8 || step == 10;
        cr_expect_eq(bins != NULL, shown, "step %ld", (long)step);
        cr_expect_eq(bins_at(GD_TAG_STEP_SIZE_HISTOGRAM, step) != NULL, shown, "step %ld", (long)step);
        if (bins)
            cr_expect(bins[29].left == (double)-step && bins[29].count == 48, "step %ld", (long)step);
    }
    free_events();
}

Test(run_dashboard, a_step_that_was_not_applied_has_no_step_sizes) {
    for (int64_t step = 1; step <= 3; step++) {
        fill_slot((uint32_t)step, 1.0f);
        struct block *block = new_snapshot((uint64_t)step, step, (uint32_t)step);
        block->submission.applied = step != 2;
        submit_good(block);
        work();
    }
    submit_close(4);
    read_events();
    cr_expect_eq(count_tensors(GD_TAG_GRADIENT_HISTOGRAM), 3);
    cr_expect_eq(count_tensors(GD_TAG_STEP_SIZE_HISTOGRAM), 2);
    cr_expect_null(bins_at(GD_TAG_STEP_SIZE_HISTOGRAM, 2));
    free_events();
}

Test(run_dashboard, an_absent_group_is_not_counted) {
    struct block *block = new_snapshot(1, 1, 0);
    fill_slot(0, 1.0f);
    block->bitmap[0] = 5; // without the second, of 40 elements
    block->submission.groups_present = block->bitmap;
    block->submission.groups_present_bytes = 1;
    submit_good(block);
    submit_close(2);
    read_events();
    const struct gd_histogram_bin *gradient = bins_at(GD_TAG_GRADIENT_HISTOGRAM, 1);
    const struct gd_histogram_bin *step_sizes = bins_at(GD_TAG_STEP_SIZE_HISTOGRAM, 1);
    cr_assert(gradient && step_sizes);
    cr_expect_eq(gradient[29].count, 8);
    cr_expect_eq(step_sizes[29].count, 8);
    free_events();
}

static void start_other(void) {
    struct gd_open_run *open_run = small_open_run();
    open_run->adam = (struct gd_adam_config){.rule = GD_RULE_OTHER};
    open_run->selection.per_group = GD_PER_GROUP_ALWAYS;
    start(open_run);
}

Test(run_dashboard, of_another_rule_nothing_of_the_adam_family_is_shown, .init = start_other) {
    cr_assert_eq(gd_shown(run->open_run), GD_SHOWN_ALWAYS);
    take_steps(20);
    submit_close(21);
    read_events();
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text;
        gd_tag_describe(tag, &text);
        if (strncmp(text.name, "adam/", 5) == 0 || strncmp(text.name, "step_sums/", 10) == 0)
            cr_expect_eq(count_values(text.name, NULL, NULL), 0, "%s", text.name);
    }
    cr_expect_eq(count_tensors(GD_TAG_STEP_SIZE_HISTOGRAM), 0);
    cr_expect_eq(count_tensors(GD_TAG_GRADIENT_HISTOGRAM), 11);
    cr_expect_eq(count_values("coherence/cosine_lag1", NULL, NULL), 19);
    cr_expect_eq(count_values("subspace/effective_rank", NULL, NULL), 18);
    float observed;
    cr_expect_eq(count_values("gradientd/observed_fraction", NULL, &observed), 20);
    cr_expect_eq(observed, 1.0f);
    plugin_data *start = data_of(GD_TAG_SESSION_START);
    cr_assert_not_null(start);
    cr_expect_eq(start->session_start_info->n_hparams, 2);
    cr_expect_str_eq(start->session_start_info->hparams[0]->value->string_value, "other");
    cr_expect_str_eq(start->session_start_info->hparams[1]->key, "learning_rate");
    tensorboard__hparams_plugin_data__free_unpacked(start, NULL);
    free_events();
}

// ---- The bound ------------------------------------------------------------------------------------------------------

static char names[GRADIENTD_HPARAMS_MAX][GRADIENTD_NAME_BYTES_MAX + 1], text[GRADIENTD_HPARAM_TEXT_BYTES_MAX + 1];
static struct gd_hparam hparams[GRADIENTD_HPARAMS_MAX];

static void fill_hparams(void) {
    memset(text, 't', sizeof(text) - 1);
    for (int i = 0; i < GRADIENTD_HPARAMS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "%0*d", GRADIENTD_NAME_BYTES_MAX, i);
        hparams[i] = (struct gd_hparam){.name = names[i], .kind = GD_HPARAM_TEXT, .text = text};
    }
}

// Everything at once: more than any step has.
static void expect_bounded(uint32_t n_hparams, enum gd_rule rule) {
    static const uint64_t numel[] = {5};
    struct gd_open_run *open_run = new_open_run(numel, 1);
    open_run->adam.rule = rule;
    open_run->hparams = (struct gd_hparams){.hparam = hparams, .n_hparams = n_hparams, .group = names[0]};
    open_run->first_step = INT64_MAX;
    size_t bound = gd_dashboard_bytes_max(open_run);
    struct gd_record_buffer buffer = {.data = malloc(bound), .capacity = bound};
    uint8_t *content = malloc(gd_dashboard_content_bytes_max(open_run));
    cr_assert(buffer.data && content);
    uint64_t counts[GD_EXPONENTS] = {[100] = UINT64_MAX};
    const struct gd_adam_rates rates = {-1e300, 0.999, 1e300};

    gd_dashboard_append_start(&buffer, open_run, content);
    gd_dashboard_append_session_start(&buffer, open_run, &rates, 1e300, content);
    gd_dashboard_append_histograms(&buffer, 1.0, INT64_MIN, counts, counts);
    gd_dashboard_append_session_end(&buffer, 1.0, true); // each asserts that it fits
    cr_expect(buffer.used <= bound && bound - buffer.used < 1024, "%zu of %zu", buffer.used, bound);

    struct gd_layout layout;
    gd_layout_init(&layout, open_run);
    cr_expect_gt(layout.step_records_max, bound);
    cr_expect_geq(layout.outbox_bytes, 4 * layout.step_records_max);
    free(content);
    free(buffer.data);
    open_run->hparams = (struct gd_hparams){0};
    gd_open_run_free(open_run);
}

Test(run_dashboard, all_of_it_fits_its_bound) {
    fill_hparams();
    for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_OTHER; rule++)
        for (uint32_t n = 0; n <= GRADIENTD_HPARAMS_MAX; n += 32)
            expect_bounded(n, rule);
}
