// What a run is charged for is what it allocates: allocations pass through the test, which adds them up.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run_rig.h"
#include "support.h"

enum { SHADOWS = 2, MANY_GROUPS = 300, BIG_ELEMS = 3000000 };

static uint64_t allocated_bytes; // ever

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);

void *__wrap_malloc(size_t bytes) {
    allocated_bytes += bytes;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes) {
    allocated_bytes += n * bytes;
    return __real_calloc(n, bytes);
}

char *__wrap_strdup(const char *text) {
    allocated_bytes += strlen(text) + 1;
    return __real_strdup(text);
}

// Uses every user tag there may be, with the longest names.
static void use_all_tags(void) {
    char tag[GRADIENTD_NAME_BYTES_MAX + 1];
    uint32_t index;
    for (int i = 0; i < GRADIENTD_USER_TAGS_MAX; i++) {
        snprintf(tag, sizeof(tag), "%0*d", GRADIENTD_NAME_BYTES_MAX, i);
        cr_assert_eq(gd_user_tags_use(run->user_tags, tag, 1, &index, &error), 0, "%s", error.text);
    }
}

static void expect_charged(const uint64_t *numel, uint32_t n_groups, uint32_t n_shadows, enum gd_per_group per_group) {
    static const enum gd_rule shadows[SHADOWS] = {GD_RULE_ADAGRAD, GD_RULE_AMSGRAD};
    struct gd_layout layout;
    allocated_bytes = 0;
    struct gd_open_run *open_run = new_open_run(numel, n_groups);
    for (uint32_t i = 0; i < n_shadows; i++)
        open_run->shadows[i] = gd_adam_shadow(&open_run->adam, shadows[i]);
    open_run->n_shadows = n_shadows;
    show_groups(open_run, per_group, 0);
    gd_layout_init(&layout, open_run);
    uint64_t charged = gd_run_own_bytes(open_run, &layout) - GD_RUN_QUEUE_BYTES_MAX;
    start(open_run);
    use_all_tags();
    cr_expect_leq(allocated_bytes, charged, "%u groups: %llu bytes, charged for %llu", n_groups,
                  (unsigned long long)allocated_bytes, (unsigned long long)charged);
    cr_expect_gt(2 * allocated_bytes, charged, "%u groups: %llu bytes, charged for %llu", n_groups,
                 (unsigned long long)allocated_bytes, (unsigned long long)charged);
    free_run();
}

Test(run_bytes, a_run_allocates_no_more_than_it_is_charged_for) {
    static const uint64_t small[] = {8}, big[] = {BIG_ELEMS};
    uint64_t many[MANY_GROUPS];
    for (int i = 0; i < MANY_GROUPS; i++)
        many[i] = (uint64_t)i + 1;
    expect_charged(small, 1, 0, GD_PER_GROUP_IF_FEW);
    expect_charged(big, 1, 0, GD_PER_GROUP_IF_FEW);
    expect_charged(many, MANY_GROUPS, 0, GD_PER_GROUP_NEVER);
    expect_charged(many, MANY_GROUPS, SHADOWS, GD_PER_GROUP_NEVER);
    expect_charged(many, MANY_GROUPS, SHADOWS, GD_PER_GROUP_ALWAYS);
}
