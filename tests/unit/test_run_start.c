// A run whose optimiser state is handed over: what start vectors must be, and what the first snapshots make of them.
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "run_rig.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

TestSuite(run_start);

static struct gd_open_run *starting_open_run(enum gd_rule rule) {
    struct gd_open_run *open_run = small_open_run();
    open_run->adam.rule = rule;
    open_run->adam.bias_correction = rule == GD_RULE_ADAM;
    open_run->adam.maximum_of = rule == GD_RULE_AMSGRAD ? GD_MAXIMUM_RAW_THEN_CORRECTED : 0;
    open_run->groups[1].step_lag = 100; // has no step before the first snapshot, where t is 100
    open_run->starts = (UINT32_C(1) << gd_adam_state_arrays(&open_run->adam)) - 1;
    return open_run;
}

static struct block *new_start(uint64_t sequence, uint32_t array, uint64_t optimizer_step) {
    struct block *block = new_block(GD_SUBMISSION_START, sequence, 0);
    block->submission.start = array;
    block->submission.has_optimizer_step = true;
    block->submission.optimizer_step = optimizer_step;
    return block;
}

static void fill_start(uint32_t array, float value) {
    float *elements = gd_memory_second_moment(&run->memory, 0, 1, array);
    for (uint64_t i = 0; i < run->open_run->elements; i++)
        elements[i] = value;
}

// ---- What is taken --------------------------------------------------------------------------------------------------

enum what { SNAPSHOT, START, SCALARS, CLOSE };

struct message {
    enum what what;
    uint32_t array;
    uint64_t optimizer_step; // of a snapshot 0: not stated
    uint32_t slot;
};

static const struct {
    const char *what;
    enum gd_rule rule;
    bool none; // the run declares none
    struct message messages[4];
    uint32_t n;
    const char *field, *text; // of the last one; NULL: accepted
} orders[] = {
    {"v", GD_RULE_ADAM, false, {{START, 0, 100, 0}, {SNAPSHOT, 0, 0, 0}}, 2, NULL, ""},
    {"later", GD_RULE_ADAM, false, {{SCALARS, 0, 0, 0}, {START, 0, 100, 0}, {SNAPSHOT, 0, 0, 0}}, 3, NULL, ""},
    {"never", GD_RULE_ADAM, false, {{CLOSE, 0, 0, 0}}, 1, NULL, ""},
    {"none", GD_RULE_ADAM, false, {{SNAPSHOT, 0, 101, 0}}, 1, "start_streams", "1 entries"},
    {"undeclared", GD_RULE_ADAM, true, {{START, 0, 100, 0}}, 1, "start_streams", "none of OpenRun's 0"},
    {"another", GD_RULE_ADAM, false, {{START, 1, 100, 0}}, 1, "start_streams", "none of OpenRun's 1"},
    {"twice", GD_RULE_ADAM, false, {{START, 0, 100, 0}, {START, 0, 100, 0}}, 2, "start_streams", "second"},
    {"too late",
     GD_RULE_ADAM,
     false,
     {{START, 0, 100, 0}, {SNAPSHOT, 0, 0, 0}, {START, 0, 100, 0}},
     3,
     "start_streams",
     "second"},
    {"slot", GD_RULE_ADAM, false, {{START, 0, 100, 1}}, 1, "slot", "below the number of slots, 1"},
    {"lag", GD_RULE_ADAM, false, {{START, 0, 99, 0}}, 1, "optimizer_step", "is 99, it must be at least"},
    {"v and max", GD_RULE_AMSGRAD, false, {{START, 0, 100, 0}, {START, 1, 100, 0}, {SNAPSHOT, 0, 0, 0}}, 3, NULL, ""},
    {"max and v", GD_RULE_AMSGRAD, false, {{START, 1, 100, 0}, {START, 0, 100, 0}, {SNAPSHOT, 0, 0, 0}}, 3, NULL, ""},
    {"half", GD_RULE_AMSGRAD, false, {{START, 0, 100, 0}, {SNAPSHOT, 0, 0, 0}}, 2, "start_streams", "2 entries"},
    {"steps that differ",
     GD_RULE_AMSGRAD,
     false,
     {{START, 0, 100, 0}, {START, 1, 101, 0}},
     2,
     "optimizer_step",
     "is 101, it must be that of the other StartVector, 100"},
    {"a step it holds",
     GD_RULE_ADAM,
     false,
     {{START, 0, 100, 0}, {SNAPSHOT, 0, 100, 0}},
     2,
     "optimizer_step",
     "above the last applied one, 100"},
    {"the next step", GD_RULE_ADAM, false, {{START, 0, 100, 0}, {SNAPSHOT, 0, 101, 0}}, 2, NULL, ""},
    {"a later step", GD_RULE_ADAM, false, {{START, 0, 100, 0}, {SNAPSHOT, 0, 105, 0}}, 2, NULL, ""},
};

Test(run_start, one_of_each_comes_before_the_first_snapshot) {
    for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
        struct gd_open_run *open_run = starting_open_run(orders[i].rule);
        if (orders[i].none)
            open_run->starts = 0;
        start(open_run);
        for (uint32_t j = 0; j < orders[i].n; j++) {
            const struct message *message = &orders[i].messages[j];
            struct block *block = message->what == START ? new_start(j + 1, message->array, message->optimizer_step)
                                  : message->what == SNAPSHOT ? new_snapshot(j + 1, 1, message->slot)
                                  : message->what == SCALARS  ? new_block(GD_SUBMISSION_SCALARS, j + 1, 0)
                                                              : new_block(GD_SUBMISSION_CLOSE, j + 1, 0);
            block->submission.slot = message->slot;
            block->submission.optimizer_step = message->optimizer_step;
            block->submission.has_optimizer_step = message->optimizer_step > 0;
            bool refused = orders[i].field && j + 1 == orders[i].n;
            int result = submit(block);
            cr_expect_eq(result, refused ? -EBADMSG : 0, "%s, message %u: %s", orders[i].what, j, error.text);
            if (refused) {
                cr_expect_eq(error.code, GD_ERROR_INVALID, "%s", orders[i].what);
                cr_expect_str_eq(error.field, orders[i].field, "%s: %s", orders[i].what, error.text);
                cr_expect_not_null(strstr(error.text, orders[i].text), "%s: %s", orders[i].what, error.text);
            }
        }
        free_run();
    }
}

// ---- What becomes of them -------------------------------------------------------------------------------------------

// The state as the trainer wrote it stays whole until the first snapshot: a daemon that dies before takes it once more.
Test(run_start, the_vectors_become_roots_in_the_other_half, .fini = free_run) {
    start(starting_open_run(GD_RULE_AMSGRAD));
    fill_start(0, 4.0f);
    fill_start(1, 9.0f);
    submit_good(new_start(1, 0, 100));
    work();
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 0, 0), 0.0f, "not before all are there");
    cr_expect_eq(run->state->starts, 1);
    submit_good(new_start(2, 1, 100));
    work();
    cr_expect_eq(run->state->starts, 3);
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 0, 0), 2.0f);
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 0, 1), 3.0f);
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 1, 0), 4.0f);
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 1, 1), 9.0f);
    cr_expect_eq(run->state->adam.optimizer_step, 100);
}

Test(run_start, inline_vectors_go_where_mapped_ones_lie, .fini = free_run) {
    start(starting_open_run(GD_RULE_AMSGRAD));
    close(run->memory.fd); // as a run without memory
    run->memory.fd = -1;
    for (uint32_t array = 0; array < 2; array++) {
        struct block *block = new_start(array + 1, array, 100);
        block->submission.delivery = GD_INLINE;
        submit_good(block);
        uint64_t bytes = 0;
        cr_expect_eq(gd_run_arriving_elements(run, &bytes),
                     (uint8_t *)gd_memory_second_moment(&run->memory, 0, 1, array));
        cr_expect_eq(bytes, run->open_run->elements * sizeof(float));
        gd_run_queue_arrived(run);
    }
    cr_expect_eq(work(), 2);
    cr_expect_eq(run->state->starts, 3);
}

static double value_at(int64_t step, const char *tag) {
    for (size_t i = 0; i < n_events; i++) {
        const Tensorboard__Summary__Value *value = events[i]->step == step ? value_in(events[i], tag) : NULL;
        if (value)
            return (double)value->simple_value;
    }
    return (double)NAN;
}

static void expect_value(int64_t step, const char *tag, double expected, double tolerance) {
    double value = value_at(step, tag);
    cr_expect(fabs(value - expected) <= tolerance * fabs(expected), "%s at step %" PRId64 " is %.9g, not %.9g", tag,
              step, value, expected);
}

// e of a coordinate whose v is `v` after its own step t, by adam.
static double step_size(double rate, double v, double t) {
    return rate / (sqrt(v / (1.0 - pow(0.999, t))) + 1e-8);
}

// 8 elements with a history of 100 steps and 40 without; gradients are 1, and v was 1 / 4.
Test(run_start, the_family_begins_with_the_first_snapshot) {
    const struct {
        const char *what;
        double start_rate;      // NaN: not stated
        uint64_t first;         // optimizer_step
        bool not_applied_first; // a step before, at another rate, that was not applied
    } cases[] = {
        {"the same rate", (double)NAN, 101, false},
        {"another rate", 0.02, 101, false},
        {"missing steps", 0.02, 105, false},
        {"a step that was not applied", (double)NAN, 101, true},
        {"a step that was not applied, another rate", 0.02, 101, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct gd_open_run *open_run = starting_open_run(GD_RULE_ADAM);
        open_run->start_learning_rates[0] = cases[i].start_rate;
        start(open_run);
        fill_start(0, 0.25f);
        submit_good(new_start(1, 0, 100));
        uint64_t sequence = 1;
        if (cases[i].not_applied_first) {
            struct block *skipped = new_snapshot(++sequence, 1, 1);
            skipped->submission.applied = false;
            skipped->rates[0].learning_rate = 0.03;
            submit_good(skipped);
        }
        for (uint32_t step = 2; step <= 3; step++) {
            fill_slot(step, 1.0f);
            struct block *block = new_snapshot(++sequence, step, step);
            block->submission.has_optimizer_step = step == 2;
            block->submission.optimizer_step = cases[i].first;
            submit_good(block);
        }
        submit_close(++sequence);
        read_events();

        const double missing = (double)(cases[i].first - 101), keep = pow(0.999, missing + 1.0);
        const double v = keep * 0.25 + 1.0 - keep, t = (double)cases[i].first;
        const double v_young = 1.0 - pow(0.999, missing + 1.0), t_young = missing + 1.0;
        const double rate_before = !isnan(cases[i].start_rate)  ? cases[i].start_rate
                                   : cases[i].not_applied_first ? 0.03
                                                                : 0.01;
        const double e = step_size(0.01, v, t), e_young = step_size(0.01, v_young, t_young);
        expect_value(2, "step_sums/A", 8.0 * e + 40.0 * e_young, 1e-6);
        expect_value(2, "step_sums/C", missing > 0.0 ? 0.0 : 8.0 * fabs(e - step_size(rate_before, 0.25, 100.0)),
                     1e-4); // the state's rounding
        expect_value(2, "adam/A", 8.0 * e + 40.0 * e_young, 1e-6);
        expect_value(2, "gradientd/observed_fraction", 1.0 / (missing + 1.0), 1e-6);
        expect_value(3, "gradientd/observed_fraction", 2.0 / (missing + 2.0), 1e-6);
        cr_expect_not(isnan(value_at(2, "adam/rms")), "%s", cases[i].what);
        free_events();
        free_run();
    }
}

// Another daemon takes the run over after each commit, and the file is the same.
Test(run_start, a_run_goes_on_between_its_start_vectors, .fini = free_run) {
    start(starting_open_run(GD_RULE_AMSGRAD));
    fill_start(0, 4.0f);
    fill_start(1, 9.0f);
    submit_good(new_start(1, 0, 100));
    work();
    gd_run_stop(run, true);
    gd_run_end(run);
    int memory = dup(memory_fd), events_file = dup(event_fd);
    free_run();

    new_run(starting_open_run(GD_RULE_AMSGRAD));
    close(memory_fd);
    close(event_fd);
    memory_fd = memory;
    event_fd = events_file;
    cr_assert_eq(attach(), 0, "%s", error.text);
    cr_expect_eq(submit(new_start(2, 0, 100)), -EBADMSG);
    cr_expect_str_eq(error.field, "start_streams");
    cr_expect_eq(submit(new_start(2, 1, 101)), -EBADMSG);
    cr_expect_str_eq(error.field, "optimizer_step");
    submit_good(new_start(2, 1, 100));
    work();
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 0, 0), 2.0f);
    cr_expect_eq(*gd_memory_second_moment(&run->memory, 0, 0, 1), 3.0f);
    submit_good(new_snapshot(3, 1, 0));
    work();
    cr_expect_eq(run->state->adam.counted, 1);
}
