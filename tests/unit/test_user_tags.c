#include "user_tags.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "tags.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static struct gd_user_tags *tags;
static struct gd_error error;

// Linked in place of getrandom() for the code under test.
static ssize_t random_result = -1; // -1: as many as asked for
static unsigned keys_drawn;

ssize_t __wrap_getrandom(void *buffer, size_t bytes, unsigned flags);

ssize_t __wrap_getrandom(void *buffer, size_t bytes, unsigned flags) {
    (void)flags;
    keys_drawn++;
    memset(buffer, 0xff, bytes); // reduced into the field, whatever it is
    return random_result < 0 ? (ssize_t)bytes : random_result;
}

static void new_tags(void) {
    cr_assert_eq(gd_user_tags_new(&tags), 0);
    error = (struct gd_error){.field = ""};
}

static void free_tags(void) {
    gd_user_tags_free(tags);
}

TestSuite(user_tags, .init = new_tags, .fini = free_tags);

static int use(const char *tag, int64_t step, uint32_t *ret_index) {
    return gd_user_tags_use(tags, tag, step, ret_index, &error);
}

Test(user_tags, each_table_draws_a_key) {
    struct gd_user_tags *other;
    cr_expect_eq(keys_drawn, 1);
    cr_assert_eq(gd_user_tags_new(&other), 0);
    cr_expect_eq(keys_drawn, 2);
    gd_user_tags_free(other);
    random_result = 5;
    cr_expect_eq(gd_user_tags_new(&other), -EIO);
}

Test(user_tags, indices_follow_first_use) {
    const struct {
        const char *tag;
        int64_t step;
        uint32_t index;
    } uses[] = {
        {"train/loss", 0, 0}, {"b", 0, 1},          {"train/loss", 1, 0}, {"a", 1, 2},
        {"b", 1, 1},          {"train/Loss", 1, 3}, {"a", 2, 2},          {"train/loss ", 2, 4},
    };

    for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
        uint32_t index = UINT32_MAX;
        cr_expect_eq(use(uses[i].tag, uses[i].step, &index), 0, "use %zu: %s", i, error.text);
        cr_expect_eq(index, uses[i].index, "use %zu: %u", i, index);
        cr_expect_str_eq(gd_user_tags_name(tags, index), uses[i].tag);
    }
}

Test(user_tags, a_tag_s_steps_rise) {
    const struct {
        const char *tag;
        int64_t step;
        bool accepted;
    } uses[] = {
        {"a", 0, true},         {"a", 0, false},         {"a", 5, true}, {"a", 5, false},
        {"a", 4, false},        {"b", 4, true},          {"b", 5, true}, {"a", 6, true},
        {"a", INT64_MAX, true}, {"a", INT64_MAX, false}, {"b", 6, true}, {"c", 0, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
        uint32_t index = UINT32_MAX;
        int result = use(uses[i].tag, uses[i].step, &index);
        cr_expect_eq(result, uses[i].accepted ? 0 : -EBADMSG, "use %zu: %s", i, error.text);
        if (uses[i].accepted)
            continue;
        char step[24];
        snprintf(step, sizeof(step), "%" PRId64, uses[i].step);
        cr_expect_eq(error.code, GD_ERROR_INVALID);
        cr_expect_str_eq(error.field, "step");
        cr_expect_not_null(strstr(error.text, step), "use %zu: %s", i, error.text);
        cr_expect_eq(index, UINT32_MAX, "use %zu", i);
    }
}

Test(user_tags, a_use_can_be_taken_back) {
    uint32_t index;
    for (int first = 0; first <= 1; first++) { // the tag's first use, then a later one
        cr_assert_eq(use("a", 5 + first, &index), 0, "%s", error.text);
        gd_user_tags_undo(tags, index);
        cr_expect_eq(use("a", 5 + first, &index), 0, "%s", error.text);
        cr_expect_eq(index, 0);
        cr_expect_eq(use("a", 5 + first, &index), -EBADMSG);
    }
}

Test(user_tags, own_tags_are_refused) {
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text;
        uint32_t index = UINT32_MAX;
        gd_tag_describe((enum gd_tag)tag, &text);
        cr_expect_eq(use(text.name, 1, &index), -EBADMSG, "%s", text.name);
        cr_expect_eq(error.code, GD_ERROR_INVALID);
        cr_expect_str_eq(error.field, "scalars.tag");
        cr_expect_not_null(strstr(error.text, text.name), "%s", error.text);
    }
    uint32_t index;
    cr_expect_eq(use("adam/mine", 1, &index), 0, "%s", error.text);
    cr_expect_eq(index, 0, "refused tags take no index");
}

Test(user_tags, nothing_may_be_called_as_a_shadow_or_a_group_is) {
    const struct {
        const char *tag;
        bool accepted;
    } cases[] = {
        {"shadow_amsgrad/A", false},    {"shadow_sgd/anything", false}, {"shadow_adam/", false},
        {"shadow_adam", true},          {"shadow_lion/A", true},        {"shadow_adamx/A", true},
        {"my/shadow_adam/A", true},     {"group_norm/mine", false},     {"group_cosine_lag7/", false},
        {"group_cosine_lag33/a", true}, {"group_size/a", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int again = 0; again < 2; again++) {
            uint32_t index = UINT32_MAX;
            int result = use(cases[i].tag, again, &index);
            cr_expect_eq(result, cases[i].accepted ? 0 : -EBADMSG, "%s", cases[i].tag);
            cr_expect(cases[i].accepted || (error.code == GD_ERROR_INVALID && index == UINT32_MAX));
        }
}

Test(user_tags, a_run_has_at_most_1024) {
    char tag[32];
    uint32_t index;

    for (uint32_t i = 0; i < 1024; i++) {
        snprintf(tag, sizeof(tag), "user/%u", i);
        cr_assert_eq(use(tag, 1, &index), 0, "%s: %s", tag, error.text);
        cr_assert_eq(index, i);
    }
    for (int again = 0; again < 2; again++) {
        cr_expect_eq(use("one/more", 1, &index), -EBADMSG);
        cr_expect_eq(error.code, GD_ERROR_QUOTA);
        cr_expect_str_eq(error.field, "scalars.tag");
        cr_expect_not_null(strstr(error.text, "1024"), "%s", error.text);
    }
    for (uint32_t i = 0; i < 1024; i++) {
        snprintf(tag, sizeof(tag), "user/%u", i);
        cr_assert_eq(use(tag, 2, &index), 0, "%s: %s", tag, error.text);
        cr_assert_eq(index, i);
        cr_assert_str_eq(gd_user_tags_name(tags, i), tag);
    }
}

Test(user_tags, the_name_is_a_copy) {
    char tag[] = "before";
    uint32_t index;
    cr_assert_eq(use(tag, 1, &index), 0);
    strcpy(tag, "after");
    cr_expect_str_eq(gd_user_tags_name(tags, index), "before");
}

Test(user_tags, null_can_be_freed) {
    gd_user_tags_free(NULL);
}
