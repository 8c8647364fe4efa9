#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tags.h"

// What users see and what scripts look for; changing one of these loses a chart's history.
static const char *const names[GD_TAG_COUNT - GD_TAG_MU] = {
    "coherence/mu",
    "coherence/mu_past",
    "coherence/tolerable_staleness",
    "adam/B_over_A",
    "adam/C_over_A",
    "adam/slope_B_over_A",
    "adam/slope_C_over_A",
    "adam/oscillation",
    "adam/rms",
    "adam/A",
    "adam/B",
    "adam/C",
    "adam/D",
    "adam/active_fraction",
    "adam/step_size_min",
    "adam/step_size_mean",
    "step_sums/A",
    "step_sums/B",
    "step_sums/C",
    "step_sums/D",
    "gradient/norm",
    "gradient/norm_max",
    "gradient/max_abs",
    "gradient/zero_fraction",
    "gradient/non_finite",
    "gradientd/observed_fraction",
    "staleness/observed",
    "noise/S",
    "noise/G2",
    "noise/B_simple",
    "noise_single/S",
    "noise_single/G2",
    "noise_single/B_simple",
    "fisher/trace",
    "fisher/trace_empirical",
    "subspace/effective_rank",
    "subspace/top_share",
};

static struct gd_tag_text describe(unsigned tag) {
    // What is not written is found below: no terminating 0, no description.
    struct gd_tag_text text;
    memset(&text, 0x7f, sizeof(text));
    text.description = NULL;
    gd_tag_describe(tag, &text);
    return text;
}

// Whether `text` is UTF-8 as RFC 3629 has it: shortest form, no surrogates, at most U+10FFFF, no control characters.
static bool is_text(const char *text) {
    const uint8_t *next = (const uint8_t *)text;
    while (*next != 0) {
        uint32_t code = *next++;
        int more = code < 0x80 ? 0 : code < 0xc0 ? -1 : code < 0xe0 ? 1 : code < 0xf0 ? 2 : code < 0xf8 ? 3 : -1;
        if (more < 0 || code < 0x20 || code == 0x7f)
            return false;
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        code = more == 0 ? code : code & (0x3fu >> more);
        for (int i = 0; i < more; i++) {
            if ((*next & 0xc0) != 0x80)
                return false;
            code = code << 6 | (*next++ & 0x3f);
        }
        if (code < least[more] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
            return false;
    }
    return true;
}

Test(tags, lags_are_named_from_1) {
    for (unsigned lag = 1; lag <= GD_LAG_MAX; lag++) {
        char expected[GD_TAG_NAME_BYTES];
        snprintf(expected, sizeof(expected), "coherence/cosine_lag%u", lag);
        cr_assert_str_eq(describe(GD_TAG_COSINE_LAG + lag - 1).name, expected);
        snprintf(expected, sizeof(expected), "coherence/ratio_lag%u", lag);
        cr_assert_str_eq(describe(GD_TAG_RATIO_LAG + lag - 1).name, expected);
    }
}

Test(tags, a_shadow_has_every_tag_of_the_adam_family) {
    static const char *const rules[] = {"sgd", "adam", "adamw", "rmsprop", "amsgrad", "adagrad", "adafom"};
    unsigned n = 0;
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text own = describe(tag);
        bool is_adam = strncmp(own.name, "adam/", 5) == 0;
        cr_expect_eq(gd_tag_is_adam(tag), is_adam, "%s", own.name);
        n += is_adam;
        for (unsigned rule = 1; is_adam && rule <= 7; rule++) {
            char expected[2 * GD_TAG_NAME_BYTES];
            struct gd_tag_text shadow;
            snprintf(expected, sizeof(expected), "shadow_%s/%s", rules[rule - 1], own.name + 5);
            gd_tag_describe_shadow(rule, tag, &shadow);
            cr_expect_str_eq(shadow.name, expected);
            cr_expect(gd_tag_is_reserved(shadow.name), "%s", shadow.name);
            cr_expect_eq(strncmp(shadow.description, "As a shadow", 11), 0, "%s", shadow.description);
            size_t added = strlen(shadow.description) - strlen(own.description);
            cr_expect_str_eq(shadow.description + added, own.description, "%s", shadow.name);
        }
        // Where all begins so, scalars are reserved with the rest; the others are known by name.
        cr_expect_eq(gd_tag_is_reserved(own.name), strncmp(own.name, "gradientd/", 10) == 0, "%s", own.name);
    }
    cr_expect_eq(n, GD_ADAM_TAGS);
}

Test(tags, rules_have_their_names) {
    cr_expect_str_eq(gd_rule_name(1), "sgd");
    cr_expect_str_eq(gd_rule_name(7), "adafom");
    cr_expect_str_eq(gd_rule_name(8), "other");
}

Test(tags, what_is_no_scalar_is_reserved) {
    cr_expect(gd_tag_is_reserved("coherence/cosine_matrix"));
    cr_expect(gd_tag_is_reserved("subspace/eigenvalues"));
    cr_expect(gd_tag_is_reserved("fisher/critical_period"));
    cr_expect_not(gd_tag_is_reserved("fisher/critical_periods"));
    cr_expect_not(gd_tag_is_reserved("fisher/"));
    static const char *const reserved[] = {
        "gradientd/how_to_read",
        "gradientd/",
        "gradientd/a/b",
        "gradient/log2_abs",
        "adam/log2_step_size",
        "custom_scalars__config__",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
        "_hparams_/experiment",
        "_hparams_/",
        GD_TAG_PAGE,
        GD_TAG_GRADIENT_HISTOGRAM,
        GD_TAG_STEP_SIZE_HISTOGRAM,
        GD_TAG_LAYOUT,
        GD_TAG_SESSION_START,
        GD_TAG_SESSION_END,
    };
    static const char *const free_for_trainers[] = {
        "gradientd",
        "gradientds/a",
        "a/gradientd/",
        "gradient/log2_abs2",
        "gradient/log2",
        "gradient/mine",
        "adam/log2_step_size/b",
        "adam/mine",
        "shadow_other/A", // of a rule that is no shadow
        "_hparams_",
        "hparams/a",
        "custom_scalars/",
        "custom_scalars__config",
        "custom_scalars__config__/a",
    };
    for (size_t i = 0; i < sizeof(reserved) / sizeof(*reserved); i++)
        cr_expect(gd_tag_is_reserved(reserved[i]), "%s", reserved[i]);
    for (size_t i = 0; i < sizeof(free_for_trainers) / sizeof(*free_for_trainers); i++)
        cr_expect_not(gd_tag_is_reserved(free_for_trainers[i]), "%s", free_for_trainers[i]);
}

Test(tags, names_are_the_published_ones) {
    for (unsigned tag = GD_TAG_MU; tag < GD_TAG_COUNT; tag++)
        cr_assert_str_eq(describe(tag).name, names[tag - GD_TAG_MU]);
}

Test(tags, names_are_unique_and_fit) {
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text = describe(tag);
        cr_assert_not_null(memchr(text.name, '\0', sizeof(text.name)), "tag %u", tag);
        cr_assert_gt(strlen(text.name), 0);
        for (unsigned other = 0; other < tag; other++)
            cr_assert_str_neq(text.name, describe(other).name);
    }
}

// TensorBoard sorts groups by name and opens the first two.
Test(tags, adam_and_coherence_are_the_first_groups) {
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text = describe(tag);
        char *slash = strchr(text.name, '/');
        cr_assert_not_null(slash, "%s has no group", text.name);
        *slash = '\0';
        cr_assert(strcmp(text.name, "adam") == 0 || strcmp(text.name, "coherence") >= 0, "%s", text.name);
    }
}

Test(tags, descriptions_are_one_sentence_of_markdown) {
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text = describe(tag);
        cr_assert_not_null(text.description, "%s", text.name);
        cr_assert(is_text(text.description), "%s", text.name);
        cr_assert_null(strstr(text.description, ". "), "%s: more than one sentence", text.name);
        size_t bytes = strlen(text.description);
        cr_assert_gt(bytes, 40, "%s", text.name);
        cr_assert_eq(text.description[bytes - 1], '.', "%s", text.name);
    }
}

// Outside of code spans Markdown would take < and * for markup.
Test(tags, formulas_are_code) {
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text = describe(tag);
        bool code = false;
        int spans = 0;
        for (const char *next = text.description; *next != '\0'; next++) {
            if (*next == '`') {
                code = !code;
                spans++;
            }
            cr_assert(code || !strchr("<>*|_", *next), "%s: '%c' in running text", text.name, *next);
        }
        cr_assert(!code, "%s: open code span", text.name);
        cr_assert_gt(spans, 0, "%s: no formula", text.name);
    }
}

Test(tags, papers_are_cited) {
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        struct gd_tag_text text = describe(tag);
        const char *paper = NULL;
        if (strncmp(text.name, "coherence/", 10) == 0)
            paper = "arXiv 1810.03264";
        else if (strcmp(text.name, "adam/rms") == 0)
            paper = "arXiv 2304.13013";
        else if (strncmp(text.name, "noise", 5) == 0)
            paper = "arXiv 1812.06162";
        else if (strncmp(text.name, "fisher/", 7) == 0)
            paper = "arXiv 1711.08856";
        else if (strstr(text.name, "_over_A") || strstr(text.name, "oscillation") ||
                 strncmp(text.name, "step_sums/", 10) == 0)
            paper = "arXiv 1808.02941";
        cr_assert(!paper || strstr(text.description, paper), "%s does not cite %s", text.name, paper);
    }
}

Test(tags, values_are_a_set) {
    struct gd_values values = {0};
    for (unsigned tag = 0; tag < GD_TAG_COUNT; tag++) {
        cr_assert(!gd_values_has(&values, tag));
        gd_values_set(&values, tag, tag + 0.5);
        for (unsigned other = 0; other < GD_TAG_COUNT; other++)
            cr_assert_eq(gd_values_has(&values, other), other <= tag);
        cr_assert_eq(values.value[tag], tag + 0.5);
    }
}
