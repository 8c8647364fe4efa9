#include "group_tags.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

// What users see and what scripts look for; changing one of these loses a chart's history.
static const char *const names[GD_GROUP_COSINE_LAG] = {
    "group_norm/",     "group_max_abs/",  "group_zero_fraction/",  "group_non_finite/",
    "group_B_over_A/", "group_C_over_A/", "group_step_size_mean/",
};

static struct gd_tag_text describe(enum gd_group_quantity quantity) {
    struct gd_tag_text text;
    memset(&text, 0x7f, sizeof(text));
    text.description = NULL;
    gd_group_tag_describe(quantity, &text);
    return text;
}

Test(group_tags, names_are_the_published_ones) {
    for (unsigned quantity = 0; quantity < GD_GROUP_COSINE_LAG; quantity++)
        cr_expect_str_eq(describe(quantity).name, names[quantity]);
    cr_expect_str_eq(describe(GD_GROUP_FISHER).name, "group_fisher/");
    for (unsigned lag = 1; lag <= GD_LAG_MAX; lag++) {
        char expected[GD_TAG_NAME_BYTES];
        snprintf(expected, sizeof(expected), "group_cosine_lag%u/", lag);
        cr_expect_str_eq(describe(GD_GROUP_COSINE_LAG + lag - 1).name, expected);
    }
}

// Markdown: outside of code spans it would take < and * for markup.
Test(group_tags, descriptions_are_one_sentence_with_a_formula) {
    for (unsigned quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++) {
        struct gd_tag_text text = describe(quantity);
        bool code = false;
        int spans = 0;
        cr_assert_not_null(text.description, "%s", text.name);
        for (const char *next = text.description; *next; next++) {
            code ^= *next == '`';
            spans += *next == '`';
            cr_expect(code || !strchr("<>*|_", *next), "%s: '%c' in running text", text.name, *next);
        }
        cr_expect(!code && spans > 0, "%s", text.name);
        cr_expect_null(strstr(text.description, ". "), "%s: more than one sentence", text.name);
        cr_expect_eq(text.description[strlen(text.description) - 1], '.', "%s", text.name);
        if (quantity == GD_GROUP_FISHER)
            cr_expect_not_null(strstr(text.description, "arXiv 1711.08856"));
        else if (quantity >= GD_GROUP_COSINE_LAG)
            cr_expect_not_null(strstr(text.description, "arXiv 1810.03264"));
        if (quantity == GD_GROUP_B_OVER_A || quantity == GD_GROUP_C_OVER_A)
            cr_expect_not_null(strstr(text.description, "arXiv 1808.02941"));
    }
}

Test(group_tags, without_being_asked_norm_cosine_lag1_and_fisher_are_shown) {
    for (uint32_t max_lag = 1; max_lag <= GD_LAG_MAX; max_lag++) {
        uint64_t few = gd_group_quantities(false, max_lag), all = gd_group_quantities(true, max_lag);
        for (unsigned quantity = 0; quantity < 64; quantity++) {
            bool among_few =
                quantity == GD_GROUP_NORM || quantity == GD_GROUP_COSINE_LAG || quantity == GD_GROUP_FISHER;
            bool among_all = quantity < GD_GROUP_COSINE_LAG + max_lag || quantity == GD_GROUP_FISHER;
            cr_expect_eq(few >> quantity & 1, among_few, "max_lag %u, quantity %u", max_lag, quantity);
            cr_expect_eq(all >> quantity & 1, among_all, "max_lag %u, quantity %u", max_lag, quantity);
        }
    }
}

Test(group_tags, names_that_begin_like_one_are_told) {
    static const struct {
        const char *name;
        bool is;
    } cases[] = {
        {"group_norm/", true},
        {"group_norm/a/b", true},
        {"group_cosine_lag1/a", true},
        {"group_cosine_lag32/a", true},
        {"group_step_size_mean/", true},
        {"group_fisher/a", true},
        {"group_cosine_lag33/a", false},
        {"group_cosine_lag0/a", false},
        {"group_cosine_lag01/a", false},
        {"group_norm", false},
        {"group_norms/a", false},
        {"group_/a", false},
        {"group_size/a", false},
        {"Group_norm/a", false},
        {"agroup_norm/a", false},
        {"group_norm_max/a", false},
        {"", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        cr_expect_eq(gd_group_tag_is(cases[i].name), cases[i].is, "%s", cases[i].name);
}
