// Shadow rules in a run's file: each is what a run of its own would write.
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "run_rig.h"
#include "support.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { SNAPSHOTS = 40, VALUES_MAX = 2048 };

static const char *const names[] = {"", "sgd", "adam", "adamw", "rmsprop", "amsgrad", "adagrad", "adafom"};

// One value of a file.
struct value {
    int64_t step;
    char name[64]; // without what stands before the first slash
    float value;
    bool described;
};

struct values {
    struct value values[VALUES_MAX];
    size_t n;
};

// The values under `prefix` of the run that just ended.
static void take_values(const char *prefix, struct values *ret) {
    size_t prefix_bytes = strlen(prefix);
    ret->n = 0;
    for (size_t e = 0; e < n_events; e++)
        for (size_t i = 0; events[e]->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY && i < events[e]->summary->n_value;
             i++) {
            const Tensorboard__Summary__Value *value = events[e]->summary->value[i];
            if (strncmp(value->tag, prefix, prefix_bytes) != 0)
                continue;
            cr_assert(ret->n < VALUES_MAX);
            struct value *kept = &ret->values[ret->n++];
            *kept = (struct value){.step = events[e]->step, .value = value->simple_value};
            kept->described = value->metadata && value->metadata->summary_description;
            snprintf(kept->name, sizeof(kept->name), "%s", value->tag + prefix_bytes);
        }
}

static void expect_same(const struct values *shadow, const struct values *own, const char *what) {
    cr_assert_eq(shadow->n, own->n, "%s: %zu values, not %zu", what, shadow->n, own->n);
    for (size_t i = 0; i < own->n; i++) {
        const struct value *a = &shadow->values[i], *b = &own->values[i];
        cr_assert(a->step == b->step && strcmp(a->name, b->name) == 0, "%s: %s at %" PRId64 ", not %s at %" PRId64,
                  what, a->name, a->step, b->name, b->step);
        cr_assert(a->value == b->value, "%s: %s at %" PRId64 " is %.9g, not %.9g", what, a->name, a->step,
                  (double)a->value, (double)b->value);
        cr_assert_eq(a->described, b->described, "%s: %s at %" PRId64, what, a->name, a->step);
    }
}

// Snapshots across the step where thinning begins: some not applied, some without a group, one after a gap.
static void submit_all(uint64_t first_optimizer_step) {
    uint64_t optimizer_step = first_optimizer_step;
    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        uint32_t slot = i % 4;
        uint64_t random = i;
        float *elements = (float *)gd_memory_slot(&run->memory, slot);
        for (uint64_t j = 0; j < run->open_run->elements; j++)
            elements[j] = next_random(&random) % 4 == 0 ? 0.0f : random_gradient(&random);

        struct block *block = new_snapshot(i + 1, 9975 + (int64_t)i, slot);
        block->submission.applied = i % 11 != 5;
        block->submission.has_optimizer_step = true;
        block->submission.optimizer_step = optimizer_step;
        block->rates[0].learning_rate = 0.01 / (1.0 + i);
        if (i % 7 == 3) {
            block->submission.groups_present = block->bitmap;
            block->submission.groups_present_bytes = 1;
            block->bitmap[0] = 0x05;
        }
        if (block->submission.applied)
            optimizer_step += i == 12 ? 4 : 1;
        submit_good(block);
        work();
    }
    submit_close(SNAPSHOTS + 1);
    read_events();
}

static struct gd_open_run *shadowed_open_run(const struct gd_adam_config *adam, uint32_t step_lag) {
    struct gd_open_run *open_run = small_open_run();
    open_run->parameter_groups[0] = (struct gd_adam_rates){.beta2 = 0.875, .eps = 1e-3};
    open_run->adam = *adam;
    for (uint32_t i = 0; i < GROUPS; i++)
        open_run->groups[i].step_lag = step_lag;
    return open_run;
}

static void run_own(const struct gd_adam_config *adam, uint32_t step_lag, uint64_t first_optimizer_step,
                    struct values *ret) {
    start(shadowed_open_run(adam, step_lag));
    submit_all(first_optimizer_step);
    take_values("adam/", ret);
    free_events();
    free_run();
}

static void check_shadows_of(const struct gd_adam_config *own, uint32_t step_lag, uint64_t first_optimizer_step) {
    static struct values shadows[1 + GD_RULE_OTHER], expected;
    struct gd_open_run *open_run = shadowed_open_run(own, step_lag);
    for (enum gd_rule rule = GD_RULE_ADAFOM; rule >= GD_RULE_SGD; rule--) // not in the rules' order
        if (rule != own->rule)
            open_run->shadows[open_run->n_shadows++] = gd_adam_shadow(own, rule);
    start(open_run);
    submit_all(first_optimizer_step);
    take_values("adam/", &shadows[own->rule]);
    cr_expect(own->rule != GD_RULE_OTHER || shadows[own->rule].n == 0);
    for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_ADAFOM; rule++) {
        char prefix[32];
        snprintf(prefix, sizeof(prefix), "shadow_%s/", names[rule]);
        if (rule != own->rule)
            take_values(prefix, &shadows[rule]);
        else
            cr_expect_eq(count_values(prefix, NULL, NULL), 0, "%s", prefix);
    }
    free_events();
    free_run();

    for (enum gd_rule rule = GD_RULE_SGD; rule <= GD_RULE_ADAFOM; rule++) {
        struct gd_adam_config config = rule == own->rule ? *own : gd_adam_shadow(own, rule);
        run_own(&config, step_lag, first_optimizer_step, &expected);
        expect_same(&shadows[rule], &expected, names[rule]);
        bool silent = first_optimizer_step > step_lag + 1 && (rule == GD_RULE_AMSGRAD || rule >= GD_RULE_ADAGRAD);
        cr_expect_eq(expected.n == 0, silent, "%s", names[rule]);
    }
}

static const struct gd_adam_config owns[] = {
    {.rule = GD_RULE_SGD},
    {.rule = GD_RULE_ADAM, .bias_correction = true, .eps_root = 0.125},
    {.rule = GD_RULE_RMSPROP},
    {.rule = GD_RULE_AMSGRAD, .maximum_of = GD_MAXIMUM_CORRECTED, .absent_counts = true},
    {.rule = GD_RULE_OTHER, .eps_root = 0.125},
};

Test(run_shadow, a_shadow_is_what_a_run_of_its_own_would_be) {
    for (size_t i = 0; i < ARRAY_SIZE(owns); i++)
        check_shadows_of(&owns[i], 0, 1);
}

Test(run_shadow, a_shadow_is_silent_in_mid_training_by_itself) {
    for (size_t i = 0; i < ARRAY_SIZE(owns); i++)
        check_shadows_of(&owns[i], 300, 500);
}

Test(run_shadow, a_shadow_knows_how_far_its_groups_are_behind) {
    check_shadows_of(&owns[1], 499, 500);
}

// The vectors are the run's own rule's; the shadow has to wait for its own.
Test(run_shadow, start_vectors_are_not_the_shadows, .fini = free_run) {
    struct gd_open_run *open_run = shadowed_open_run(&owns[1], 0);
    static struct values values;
    open_run->starts = (UINT32_C(1) << gd_adam_state_arrays(&open_run->adam)) - 1;
    open_run->n_shadows = 1;
    open_run->shadows[0] = gd_adam_shadow(&owns[1], GD_RULE_ADAMW);
    start(open_run);
    struct block *vector = new_block(GD_SUBMISSION_START, 1, 0);
    vector->submission.optimizer_step = 499;
    submit_good(vector);
    for (uint32_t i = 0; i < 30; i++) {
        struct block *block = new_snapshot(i + 2, i + 1, i % 4);
        fill_slot(i % 4, 1.0f);
        submit_good(block);
        work();
    }
    submit_close(32);
    read_events();
    take_values("adam/", &values);
    cr_expect_eq(values.values[0].step, 1);
    take_values("shadow_adamw/", &values);
    cr_expect_eq(values.values[0].step, 25, "3 / (1 - 0.875) steps are silent");
    cr_expect_eq(count_values("shadow_adamw/A", NULL, NULL), 6);
    cr_expect_eq(count_values("step_sums/A", NULL, NULL), 30);
    free_events();
}
