// Valid messages, bytes that are none, and memory that runs out.
#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_messages.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

// ---- Allocations that fail ------------------------------------------------------------------------------------------

static int allocations_left = INT_MAX; // before one fails

// Linked in place of calloc and strndup for the code under test.
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
char *__real_strndup(const char *text, size_t bytes);
char *__wrap_strndup(const char *text, size_t bytes);

static bool allocation_fails(void) {
    if (allocations_left == INT_MAX)
        return false;
    return allocations_left-- <= 0;
}

void *__wrap_calloc(size_t n, size_t size) {
    return allocation_fails() ? NULL : __real_calloc(n, size);
}

char *__wrap_strndup(const char *text, size_t bytes) {
    return allocation_fails() ? NULL : __real_strndup(text, bytes);
}

// One that chooses which groups are shown.
static void make_selecting_open_run(void) {
    make_open_run();
    m.table_bytes = 0;
    m.open_run.groups = 4;
    put_group(1, 0, 0, "a.weight");
    put_group(1, 0, 0, "b.weight");
    put_group(1, 0, 0, "a.bias");
    put_group(1, 0, 0, "c.weight");
    m.patterns[0] = strcpy(m.text + 100, "?.weight");
    m.patterns[1] = strcpy(m.text + 200, "c*");
    m.open_run.exclude = m.patterns + 1;
    m.open_run.n_include = m.open_run.n_exclude = 1;
    SET_OPTIONAL(m.open_run, fold_depth, 1);
}

// ... and one with hyperparameters of each kind.
static void make_open_run_of_a_sweep(void) {
    make_open_run();
    put_hparams(3);
    m.hparam[1].value_case = GRADIENTD__HPARAM__VALUE_TEXT;
    m.hparam[1].text = strcpy(m.text + 300, "größer");
    m.hparam[2].value_case = GRADIENTD__HPARAM__VALUE_FLAG;
    m.hparam[2].flag = true;
    m.hparam[2].name = strcpy(m.text + 400, "amp");
    m.open_run.hparams_group = strcpy(m.text + 500, "sweep/3");
}

static void (*const makers[])(void) = {make_hello,        make_open_run, make_attach,    make_snapshot,
                                       make_start_vector, make_scalars,  make_close_run, make_status_request};

TestSuite(decode, .init = new_arena, .fini = free_arena);

// ---- Valid messages -------------------------------------------------------------------------------------------------

Test(decode, hello_gives_version_and_a_printable_name) {
    make_hello();
    m.hello.protocol_version = 77;
    m.hello.client = strcpy(m.text, "client 0.1\n\x1b[2J\xc3\xa9");
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect_eq(decoded.kind, GD_CLIENT_HELLO);
    cr_expect_eq(decoded.hello.protocol_version, 77);
    cr_expect_str_eq(decoded.hello.client, "client 0.1??[2J??");

    m.hello.client = NULL;
    cr_assert_eq(decode(), 0);
    cr_expect_str_eq(decoded.hello.client, "");

    memset(m.text, 'x', sizeof(m.text) - 1);
    m.hello.client = m.text;
    cr_assert_eq(decode(), 0);
    cr_expect_eq(strlen(decoded.hello.client), sizeof(decoded.hello.client) - 1);
}

Test(decode, open_run_takes_its_defaults) {
    make_open_run();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_assert_eq(decoded.kind, GD_CLIENT_OPEN_RUN);
    const struct gd_open_run *run = decoded.open_run;

    cr_expect_str_eq(run->run, "digits/adam");
    cr_expect_eq(run->wall_time, 1700000000.5);
    cr_expect_eq(run->first_step, 1);
    cr_expect_eq(run->elements, 110);
    cr_expect_eq(run->stride, 1);
    cr_expect_eq(run->element_type, GD_F32);
    cr_expect_eq(run->max_lag, 5);
    cr_expect_eq(run->inflight, 2);
    cr_expect(run->thinning);
    cr_expect_eq(run->adam.rule, GD_RULE_ADAM);
    cr_expect(run->adam.bias_correction);
    cr_expect(run->adam.eps_root == 0.0 && run->adam.initial_accumulator == 0.0);
    cr_expect(run->adam.learning_rate_decay == 0.0 && !run->adam.absent_counts);
    cr_assert_eq(run->n_groups, 2);
    cr_expect_str_eq(run->groups[0].name, "weight");
    cr_expect(run->groups[0].numel == 100 && run->groups[0].parameter_group == 0 && run->groups[0].step_lag == 0);
    cr_expect_str_eq(run->groups[1].name, "bias");
    cr_expect(run->groups[1].numel == 10 && run->groups[1].parameter_group == 1 && run->groups[1].step_lag == 3);
    cr_assert_eq(run->n_parameter_groups, 2);
    cr_expect(run->parameter_groups[1].beta2 == 0.999 && run->parameter_groups[1].eps == 1e-8);
    free_decoded();
}

Test(decode, open_run_takes_what_is_stated) {
    make_open_run();
    SET_OPTIONAL(m.open_run, max_lag, 32);
    m.stream.element_type = GRADIENTD__ELEMENT_TYPE__F16;
    SET_OPTIONAL(m.open_run, inflight, 64);
    SET_OPTIONAL(m.open_run, thinning, false);
    SET_OPTIONAL(m.open_run, absent_counts, true);
    SET_OPTIONAL(m.stream, stride, 9);
    SET_OPTIONAL(m.stream, elements, 110);
    m.optimizer.rule = GRADIENTD__RULE__ADAGRAD;
    SET_OPTIONAL(m.optimizer, eps_root, 0.125);
    SET_OPTIONAL(m.optimizer, initial_accumulator, 0.25);
    SET_OPTIONAL(m.optimizer, learning_rate_decay, 0.5);
    m.parameter_group[0].has_beta2 = m.parameter_group[0].has_eps = false;
    cr_assert_eq(decode(), 0, "%s", error.text);
    const struct gd_open_run *run = decoded.open_run;

    cr_expect(run->max_lag == 32 && run->inflight == 64 && !run->thinning && run->stride == 9);
    cr_expect_eq(run->element_type, GD_F16);
    cr_expect(run->adam.rule == GD_RULE_ADAGRAD && run->adam.absent_counts);
    cr_expect_eq(run->adam.eps_root, 0.125);
    cr_expect_eq(run->adam.initial_accumulator, 0.25);
    cr_expect_eq(run->adam.learning_rate_decay, 0.5);
    cr_expect(run->parameter_groups[0].beta2 == 0.0 && run->parameter_groups[0].eps == 0.0);
    free_decoded();
}

Test(decode, hyperparameters_are_the_trainers) {
    make_open_run();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect(!decoded.open_run->hparams.hparam && decoded.open_run->hparams.n_hparams == 0);
    cr_expect_null(decoded.open_run->hparams.group);
    uint64_t bytes = gd_open_run_bytes(decoded.open_run);
    free_decoded();

    make_open_run_of_a_sweep();
    cr_assert_eq(decode(), 0, "%s", error.text);
    const struct gd_hparams *hparams = &decoded.open_run->hparams;
    cr_assert_eq(hparams->n_hparams, 3);
    cr_expect(hparams->hparam[0].kind == GD_HPARAM_NUMBER && hparams->hparam[0].number == 0.0);
    cr_expect_str_eq(hparams->hparam[0].name, "0");
    cr_expect_eq(hparams->hparam[1].kind, GD_HPARAM_TEXT);
    cr_expect_str_eq(hparams->hparam[1].text, "größer");
    cr_expect(hparams->hparam[2].kind == GD_HPARAM_FLAG && hparams->hparam[2].flag);
    cr_expect_str_eq(hparams->hparam[2].name, "amp");
    cr_expect_str_eq(hparams->group, "sweep/3");
    size_t text_bytes = sizeof("0") + sizeof("1") + sizeof("größer") + sizeof("amp") + sizeof("sweep/3");
    cr_expect_eq(gd_open_run_bytes(decoded.open_run) - bytes, 3 * sizeof(struct gd_hparam) + text_bytes);
    free_decoded();
}

Test(decode, groups_are_shown_as_asked_for) {
    make_selecting_open_run();
    for (int per_group = 0; per_group <= 2; per_group++) { // 2: absent
        m.open_run.has_per_group = per_group < 2;
        m.open_run.per_group = per_group == 1;
        cr_assert_eq(decode(), 0, "%s", error.text);
        const struct gd_open_run *run = decoded.open_run;
        uint64_t few =
            UINT64_C(1) << GD_GROUP_NORM | UINT64_C(1) << GD_GROUP_COSINE_LAG | UINT64_C(1) << GD_GROUP_FISHER;
        cr_expect_eq(run->series.n_series, per_group == 0 ? 0 : 2);
        cr_expect_eq(gd_open_run_quantities(run) == few, per_group != 1);
        if (per_group > 0) {
            cr_expect_str_eq(run->series.name[0], "a");
            cr_expect_str_eq(run->series.name[1], "b");
            cr_expect_eq(gd_group_series_of(&run->series, 2), GD_NO_SERIES);
            cr_expect_eq(gd_group_series_of(&run->series, 3), GD_NO_SERIES);
        }
        free_decoded();
    }
}

Test(decode, bias_correction_follows_the_rule_unless_stated) {
    const struct {
        Gradientd__Rule rule;
        bool expected;
        bool may_be_stated;
    } cases[] = {
        {GRADIENTD__RULE__SGD, false, false},     {GRADIENTD__RULE__ADAM, true, true},
        {GRADIENTD__RULE__ADAMW, true, true},     {GRADIENTD__RULE__RMSPROP, false, true},
        {GRADIENTD__RULE__ADAGRAD, false, false}, {GRADIENTD__RULE__ADAFOM, false, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        for (int stated = 0; stated <= 2; stated++) { // 0: not; 1: false; 2: true
            make_open_run();
            m.optimizer.rule = cases[i].rule;
            m.optimizer.has_bias_correction = stated > 0;
            m.optimizer.bias_correction = stated == 2;
            if (stated && !cases[i].may_be_stated) {
                cr_expect_eq(decode(), -EBADMSG);
                cr_expect_str_eq(error.field, "bias_correction");
                continue;
            }
            cr_assert_eq(decode(), 0, "%s", error.text);
            cr_expect_eq(decoded.open_run->adam.bias_correction, stated ? stated == 2 : cases[i].expected,
                         "rule %d, stated %d", (int)cases[i].rule, stated);
            free_decoded();
        }
}

static uint64_t digest_now(void) {
    cr_assert_eq(decode(), 0, "%s", error.text);
    uint64_t digest = decoded.open_run->digest;
    free_decoded();
    return digest;
}

Test(decode, the_digest_covers_message_and_table) {
    make_open_run();
    uint64_t digest = digest_now();
    cr_expect_eq(digest_now(), digest);
    m.open_run.wall_time += 1.0;
    cr_expect_neq(digest_now(), digest);
    make_open_run();
    m.table[0] ^= 1;
    cr_expect_neq(digest_now(), digest);
    make_open_run();
    cr_expect_eq(digest_now(), digest);
}

Test(decode, attach_says_which_descriptors_come) {
    for (unsigned bits = 0; bits < 8; bits++) {
        make_attach();
        SET_OPTIONAL(m.attach, memory, bits & 1);
        SET_OPTIONAL(m.attach, event_file, bits >> 1 & 1);
        SET_OPTIONAL(m.attach, pidfd, bits >> 2 & 1);
        cr_assert_eq(decode(), 0, "%s", error.text);
        cr_expect_eq(decoded.kind, GD_CLIENT_ATTACH);
        cr_expect_eq(decoded.attach.memory, bits & 1, "bits %u", bits);
        cr_expect_eq(decoded.attach.event_file, bits >> 1 & 1, "bits %u", bits);
        cr_expect_eq(decoded.attach.pidfd, bits >> 2 & 1, "bits %u", bits);
    }
    make_attach();
    cr_assert_eq(decode(), 0);
    cr_expect(!decoded.attach.memory && !decoded.attach.event_file && !decoded.attach.pidfd);
}

Test(decode, a_snapshot_takes_its_defaults) {
    make_snapshot();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_assert_eq(decoded.kind, GD_CLIENT_SUBMISSION);
    const struct gd_submission *snapshot = decoded.submission;

    cr_expect_eq(snapshot->kind, GD_SUBMISSION_SNAPSHOT);
    cr_expect(snapshot->sequence == 7 && snapshot->step == 6 && snapshot->wall_time == 1700000001.5);
    cr_expect(!snapshot->has_optimizer_step && snapshot->applied);
    cr_expect(snapshot->slot == 4 && snapshot->skipped == 0 && !snapshot->next);
    cr_expect_null(snapshot->groups_present);
    cr_assert_eq(snapshot->n_rates, 2);
    cr_expect(snapshot->rates[0].learning_rate == 0.01 && snapshot->rates[1].learning_rate == 0.02);
    cr_expect(isnan(snapshot->rates[0].beta2) && isnan(snapshot->rates[0].eps), "as before");
    cr_assert_eq(snapshot->n_scalars, 1);
    cr_expect_str_eq(snapshot->scalars[0].tag, "train/loss");
    cr_expect_eq(snapshot->scalars[0].value, 0.25f);
    const char *end = snapshot->scalars[0].tag + sizeof("train/loss");
    cr_expect_eq(snapshot->bytes, (size_t)(end - (const char *)snapshot), "tags are the last of the block");
    free_decoded();
}

Test(decode, a_snapshot_takes_what_is_said_of_its_batch) {
    make_snapshot();
    put_squared_norms(3, 0);
    SET_OPTIONAL(m.snapshot, clip_factor, 0.5);
    for (int i = 0; i < 2; i++)
        m.group_norms[i] = 1.5 * i;
    m.squared_norm[1].n_per_group = 2;
    m.squared_norm[2].value = 7.0;
    cr_assert_eq(decode(), 0, "%s", error.text);
    const struct gd_submission *snapshot = decoded.submission;
    cr_expect(snapshot->batch_size == 64.0 && snapshot->clip_factor == 0.5);
    cr_assert_eq(snapshot->n_squared_norms, 3);
    cr_expect(snapshot->squared_norms[0].batch_size == 8.0 && snapshot->squared_norms[0].value == 2.0);
    cr_expect_eq(snapshot->squared_norms[0].n_per_group, 0);
    cr_assert_eq(snapshot->squared_norms[1].n_per_group, 2);
    cr_expect(snapshot->squared_norms[1].per_group[0] == 0.0 && snapshot->squared_norms[1].per_group[1] == 1.5);
    cr_expect_eq(snapshot->squared_norms[2].value, 7.0);
    cr_expect_str_eq(snapshot->scalars[0].tag, "train/loss", "what comes after it in the block");
    free_decoded();

    make_snapshot();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect(decoded.submission->batch_size == 0.0 && decoded.submission->clip_factor == 1.0);
    cr_expect_eq(decoded.submission->n_squared_norms, 0);
    free_decoded();
}

Test(decode, labels_are_the_datas_unless_it_is_said) {
    for (int labels = 0; labels <= 2; labels++) { // 2: not said
        make_open_run();
        m.open_run.has_labels_from_model = labels < 2;
        m.open_run.labels_from_model = labels == 1;
        cr_assert_eq(decode(), 0, "%s", error.text);
        cr_expect_eq(decoded.open_run->labels_from_model, labels == 1);
        free_decoded();
    }
}

Test(decode, a_snapshot_takes_what_is_stated) {
    make_snapshot();
    SET_OPTIONAL(m.snapshot, optimizer_step, 5);
    SET_OPTIONAL(m.snapshot, applied, false);
    SET_OPTIONAL(m.snapshot, skipped, 12);
    SET_OPTIONAL(m.rates[1], beta2, 0.5);
    SET_OPTIONAL(m.rates[1], eps, 0.0);
    m.bitmap[0] = 0x02;
    m.snapshot.has_groups_present = true;
    m.snapshot.groups_present = (ProtobufCBinaryData){1, m.bitmap};
    m.snapshot.n_scalars = 3;
    char other[] = "valid/loss";
    m.scalar[2].tag = other;
    m.scalar[2].value = NAN;
    cr_assert_eq(decode(), 0, "%s", error.text);
    const struct gd_submission *snapshot = decoded.submission;

    cr_expect(snapshot->has_optimizer_step && snapshot->optimizer_step == 5 && !snapshot->applied);
    cr_expect_eq(snapshot->skipped, 12);
    cr_expect(snapshot->rates[1].beta2 == 0.5 && snapshot->rates[1].eps == 0.0);
    cr_assert_eq(snapshot->groups_present_bytes, 1);
    cr_expect(!gd_submission_has_group(snapshot, 0) && gd_submission_has_group(snapshot, 1));
    cr_assert_eq(snapshot->n_scalars, 3);
    cr_expect_str_eq(snapshot->scalars[1].tag, "train/loss");
    cr_expect_str_eq(snapshot->scalars[2].tag, "valid/loss");
    cr_expect(isnan(snapshot->scalars[2].value), "a value may be NaN");
    free_decoded();
}

// A bitmap of no bytes is one that is too short, which the run refuses; it is not "all groups".
Test(decode, an_empty_bitmap_is_not_an_absent_one) {
    make_snapshot();
    m.snapshot.has_groups_present = true;
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect_not_null(decoded.submission->groups_present);
    cr_expect_eq(decoded.submission->groups_present_bytes, 0);
    free_decoded();
}

Test(decode, a_start_vector_is_a_submission) {
    for (int array = 0; array < 2; array++) {
        make_start_vector();
        m.elements.kind =
            array == 0 ? GRADIENTD__STREAM_KIND__START_SECOND_MOMENT : GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX;
        cr_assert_eq(decode(), 0, "%s", error.text);
        const struct gd_submission *start = decoded.submission;
        cr_expect(decoded.kind == GD_CLIENT_SUBMISSION && start->kind == GD_SUBMISSION_START);
        cr_expect(start->sequence == 1 && start->optimizer_step == 500 && start->start == (uint32_t)array);
        cr_expect(start->delivery == GD_IN_SLOT && start->slot == 0 && start->n_scalars == 0 && start->n_rates == 0);
        free_decoded();
    }
    make_start_vector();
    m.elements.has_slot = false;
    SET_OPTIONAL(m.elements, inline_bytes, 440);
    SET_OPTIONAL(m.elements, deflated, true);
    m.table_bytes = 440;
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect(decoded.submission->delivery == GD_INLINE_DEFLATED && decoded.submission->inline_bytes == 440);
    free_decoded();
}

Test(decode, open_run_says_what_is_handed_over) {
    make_open_run();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect_eq(decoded.open_run->starts, 0);
    cr_expect(isnan(decoded.open_run->start_learning_rates[0]));
    free_decoded();
    make_open_run();
    m.open_run.n_start_streams = 1;
    SET_OPTIONAL(m.parameter_group[1], start_learning_rate, -0.25);
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect_eq(decoded.open_run->starts, 1 << GD_START_SECOND_MOMENT);
    cr_expect(isnan(decoded.open_run->start_learning_rates[0]));
    cr_expect_eq(decoded.open_run->start_learning_rates[1], -0.25);
    free_decoded();
}

// In what variant each shadow follows which run.
Test(decode, a_shadow_corrects_v_as_the_run_does) {
    const struct {
        Gradientd__Rule rule;
        int corrected; // -1: not stated
        enum gd_maximum_of amsgrad;
    } cases[] = {
        {GRADIENTD__RULE__SGD, -1, GD_MAXIMUM_RAW_THEN_CORRECTED},
        {GRADIENTD__RULE__ADAM, -1, GD_MAXIMUM_RAW_THEN_CORRECTED},
        {GRADIENTD__RULE__ADAM, 0, GD_MAXIMUM_UNCORRECTED},
        {GRADIENTD__RULE__ADAMW, 0, GD_MAXIMUM_UNCORRECTED},
        {GRADIENTD__RULE__RMSPROP, -1, GD_MAXIMUM_UNCORRECTED},
        {GRADIENTD__RULE__RMSPROP, 1, GD_MAXIMUM_RAW_THEN_CORRECTED},
        {GRADIENTD__RULE__ADAGRAD, -1, GD_MAXIMUM_RAW_THEN_CORRECTED},
        {GRADIENTD__RULE__ADAFOM, -1, GD_MAXIMUM_RAW_THEN_CORRECTED},
        {GRADIENTD__RULE__OTHER, -1, GD_MAXIMUM_RAW_THEN_CORRECTED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_open_run();
        m.optimizer.rule = cases[i].rule;
        m.optimizer.has_bias_correction = cases[i].corrected >= 0;
        m.optimizer.bias_correction = cases[i].corrected > 0;
        SET_OPTIONAL(m.optimizer, eps_root, 0.125);
        SET_OPTIONAL(m.open_run, absent_counts, true);
        if (cases[i].rule == GRADIENTD__RULE__ADAGRAD)
            SET_OPTIONAL(m.optimizer, initial_accumulator, 0.25);
        size_t n = 0;
        for (int rule = 1; rule <= 7; rule++)
            if (rule != (int)cases[i].rule)
                m.shadow_rules[n++] = (Gradientd__Rule)rule;
        m.open_run.n_shadow_rules = n;
        cr_assert_eq(decode(), 0, "%s", error.text);
        cr_assert_eq(decoded.open_run->n_shadows, cases[i].rule == GRADIENTD__RULE__OTHER ? 7 : 6);
        for (size_t j = 0; j < n; j++) {
            const struct gd_adam_config *shadow = &decoded.open_run->shadows[j];
            enum gd_rule rule = (enum gd_rule)m.shadow_rules[j];
            cr_expect_eq(shadow->rule, rule, "case %zu, shadow %zu", i, j);
            cr_expect_eq(shadow->bias_correction, rule == GD_RULE_ADAM || rule == GD_RULE_ADAMW, "case %zu, rule %d", i,
                         (int)rule);
            cr_expect_eq(shadow->maximum_of, rule == GD_RULE_AMSGRAD ? cases[i].amsgrad : 0, "case %zu, rule %d", i,
                         (int)rule);
            cr_expect(shadow->eps_root == 0.125 && shadow->absent_counts && shadow->initial_accumulator == 0.0 &&
                      shadow->learning_rate_decay == 0.0);
        }
        free_decoded();
    }
}

Test(decode, scalars_and_close_run_are_submissions) {
    make_scalars();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect(decoded.kind == GD_CLIENT_SUBMISSION && decoded.submission->kind == GD_SUBMISSION_SCALARS);
    cr_expect(decoded.submission->sequence == 8 && decoded.submission->step == 6);
    cr_expect(decoded.submission->wall_time == 1700000002.5 && decoded.submission->n_scalars == 1);
    cr_expect_str_eq(decoded.submission->scalars[0].tag, "train/loss");
    free_decoded();
    for (int failed = 0; failed <= 1; failed++) {
        make_close_run();
        m.close_run.outcome = failed ? GRADIENTD__OUTCOME__FAILURE : GRADIENTD__OUTCOME__SUCCESS;
        cr_assert_eq(decode(), 0, "%s", error.text);
        cr_expect(decoded.kind == GD_CLIENT_SUBMISSION && decoded.submission->kind == GD_SUBMISSION_CLOSE);
        cr_expect(decoded.submission->sequence == 9 && decoded.submission->failed == failed);
        free_decoded();
    }
}

Test(decode, a_status_request_is_known) {
    make_status_request();
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect_eq(decoded.kind, GD_CLIENT_STATUS_REQUEST);
    cr_expect_eq(decoded.status_request.runs_after, 0);
    cr_expect_eq(decoded.status_request.alerts_after, UINT64_MAX, "alerts that nobody has asked for");
}

Test(decode, a_status_request_says_from_where_on) {
    make_status_request();
    m.status_request.has_runs_after = m.status_request.has_alerts_after = true;
    m.status_request.runs_after = 300;
    cr_assert_eq(decode(), 0, "%s", error.text);
    cr_expect_eq(decoded.status_request.runs_after, 300);
    cr_expect_eq(decoded.status_request.alerts_after, 0);
}

// ---- Bytes that are no such message ---------------------------------------------------------------------------------

#define PROTOCOL(make, ...) REFUSED(make, GD_ERROR_PROTOCOL, __VA_ARGS__)

Test(decode, a_payload_comes_with_elements_or_the_group_table) {
    for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
        if (makers[i] != make_open_run && makers[i] != make_snapshot && makers[i] != make_start_vector)
            PROTOCOL(makers[i], "payload_bytes", "is 3", "only OpenRun, Snapshot and StartVector",
                     SET(m.table_bytes, 3));
}

Test(decode, a_message_of_no_known_kind_is_refused) {
    const uint8_t unknown[] = {15 << 3 | 2, 2, 'x', 'y'}; // field 15 holds two bytes
    cr_expect_eq(decode_bytes(unknown, 0, unknown, 0), -EBADMSG);
    cr_expect(error.code == GD_ERROR_PROTOCOL && strstr(error.text, "no known kind"), "%s", error.text);
    cr_expect_eq(decode_bytes(unknown, sizeof(unknown), unknown, 0), -EBADMSG);
    cr_expect(error.code == GD_ERROR_PROTOCOL && strstr(error.text, "no known kind"), "%s", error.text);
}

// Every beginning of a valid message is refused or is one itself; none is read beyond its end.
Test(decode, every_truncation_is_survived) {
    for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
        size_t bytes;
        makers[i]();
        uint8_t *packed = pack(&bytes);
        for (size_t cut = 0; cut < bytes; cut++) {
            int result = decode_bytes(packed, cut, m.table, m.table_bytes);
            cr_assert(result == 0 || result == -EBADMSG, "message %zu, %zu bytes: %d", i, cut, result);
            cr_assert(result == 0 || (is_untouched() && error.text[0] && error.field[0]), "message %zu, %zu bytes", i,
                      cut);
            // The submessage's length is missing or too long for what is left.
            cr_assert(result < 0, "message %zu, %zu bytes of %zu", i, cut, bytes);
        }
        free(packed);
    }
}

Test(decode, every_flipped_bit_is_survived) {
    for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
        size_t bytes;
        makers[i]();
        uint8_t *packed = pack(&bytes);
        for (size_t bit = 0; bit < 8 * (bytes + m.table_bytes); bit++) {
            uint8_t *target = bit < 8 * bytes ? packed + bit / 8 : m.table + bit / 8 - bytes;
            uint8_t mask = (uint8_t)(1 << bit % 8);
            *target ^= mask;
            int result = decode_bytes(packed, bytes, m.table, m.table_bytes);
            cr_assert(result == 0 || result == -EBADMSG, "message %zu, bit %zu: %d", i, bit, result);
            if (result == 0)
                free_decoded();
            else
                cr_assert(is_untouched(), "message %zu, bit %zu", i, bit);
            *target ^= mask;
        }
        free(packed);
    }
}

// ---- Memory that runs out -------------------------------------------------------------------------------------------

// Repeated empty submessages are what takes the most memory for its bytes.
Test(decode, a_message_that_outgrows_the_arena_is_refused) {
    enum { BYTES = 1 << 20 };
    static uint8_t message[BYTES];
    const uint32_t left = BYTES - 4;
    const uint8_t head[] = {2 << 3 | 2, (left & 0x7f) | 0x80, (left >> 7 & 0x7f) | 0x80,
                            left >> 14}; // OpenRun, its bytes
    size_t at = sizeof(head);

    memcpy(message, head, sizeof(head));
    while (at + 2 <= BYTES) {
        message[at++] = 7 << 3 | 2; // parameter_groups: one that is empty
        message[at++] = 0;
    }
    cr_expect_eq(decode_bytes(message, BYTES, message, 0), -EBADMSG);
    cr_expect_eq(error.code, GD_ERROR_PROTOCOL);
    cr_expect_str_eq(error.field, "message");
    cr_expect_not_null(strstr(error.text, "1048576 bytes needs more than 8388608 bytes"), "%s", error.text);
    cr_expect(is_untouched());
}

Test(decode_from_scratch, an_arena_of_any_size_is_enough_or_said_not_to_be) {
    for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
        size_t capacity = 1;
        bool enough = false;
        for (; !enough; capacity++) {
            cr_assert(capacity < 16384, "message %zu", i);
            makers[i]();
            cr_assert_eq(gd_arena_init(&arena, capacity), 0);
            int result = decode();
            enough = result == 0;
            if (enough) {
                free_decoded();
            } else {
                char limit[32];
                snprintf(limit, sizeof(limit), "more than %zu bytes", capacity);
                cr_assert_eq(result, -EBADMSG, "message %zu, %zu bytes: %d", i, capacity, result);
                cr_assert_eq(error.code, GD_ERROR_PROTOCOL);
                cr_assert_not_null(strstr(error.text, limit), "message %zu: %s", i, error.text);
            }
            gd_arena_deinit(&arena);
        }
    }
}

Test(decode, the_arena_holds_the_largest_messages) {
    ACCEPTED(make_open_run, SET(m.open_run.n_parameter_groups, 4096));
    ACCEPTED(make_snapshot, SET(m.snapshot.n_parameter_groups, 4096), SET(m.snapshot.n_scalars, 1024));
}

// Decodes what `make` makes with the first, the second, ... allocation failing; returns how many there are.
static int fail_allocations(void (*make)(void)) {
    make();
    for (int failed = 0;; failed++) {
        allocations_left = failed;
        int result = decode();
        allocations_left = INT_MAX;
        if (result == 0) {
            free_decoded();
            return failed;
        }
        cr_assert_eq(result, -ENOMEM, "allocation %d: %d %s", failed, result, error.text);
        cr_assert(is_untouched(), "allocation %d", failed);
    }
}

Test(decode, every_failing_allocation_is_survived) {
    for (size_t i = 0; i < ARRAY_SIZE(makers); i++) {
        int failed = fail_allocations(makers[i]);
        int expected = makers[i] == make_open_run ? 12 : decoded.kind == GD_CLIENT_SUBMISSION;
        cr_expect_eq(failed, expected, "message %zu makes %d allocations", i, failed);
    }
    cr_expect_eq(fail_allocations(make_selecting_open_run), 18);
    cr_expect_eq(fail_allocations(make_open_run_of_a_sweep), 13);
}
