// Which groups are shown, and under which names: patterns, folding, limits.
#include "group_names.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gradientd/protocol.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

enum { NAMES_MAX = 65536, NAME_BYTES = 256 };

static uint64_t allocated_bytes; // ever, and how often
static uint64_t allocations;

void *__real_calloc(size_t n, size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
char *__real_strndup(const char *text, size_t bytes);
char *__wrap_strndup(const char *text, size_t bytes);

void *__wrap_calloc(size_t n, size_t bytes) {
    allocated_bytes += n * bytes;
    allocations++;
    return __real_calloc(n, bytes);
}

char *__wrap_strndup(const char *text, size_t bytes) {
    allocated_bytes += bytes + 1;
    allocations++;
    return __real_strndup(text, bytes);
}

// ---- Patterns -------------------------------------------------------------------------------------------------------

Test(group_names, patterns_match_whole_names) {
    const struct {
        const char *pattern, *name;
        bool matches;
    } cases[] = {
        {"weight", "weight", true},
        {"weight", "weights", false},
        {"weight", "a.weight", false},
        {"weights", "weight", false},
        {"", "a", false},
        {"*", "a", true},
        {"**", "a", true},
        {"*", "a/b.c", true},
        {"a*", "a", true},
        {"*a", "a", true},
        {"a*c", "abbc", true},
        {"a*c", "abbcd", false},
        {"a*/b", "a/x/b", true}, // `*` crosses '/'
        {"*.bias", "layer1.bias", true},
        {"*.bias", "layer1.bias_extra", false},
        {"*ab*ab", "abab", true},
        {"*ab*ab", "aab", false},
        {"*a*b*c*", "xaxbxcx", true},
        {"*a*b*c*", "xaxcxbx", false},
        {"*aab", "aaaab", true}, // what follows a star begins again inside what it failed on
        {"a*b*bc", "abbbc", true},
        {"?", "a", true},
        {"?", "ab", false},
        {"??", "a", false},
        {"layer?.weight", "layer1.weight", true},
        {"layer?.weight", "layer12.weight", false},
        {"*?", "a", true},
        {"*??", "a", false},
        {"?", "\xc3\xa4", true}, // one character of two bytes
        {"??", "\xc3\xa4", false},
        {"?", "\xf0\x9f\x98\x80", true},
        {"a?b",
         "a\xe2\x82\xac"
         "b",
         true},
        {"*?", "\xc3\xa4", true},
        {"*??", "\xc3\xa4", false}, // a star does not take half a character
        {"*??", "\xc3\xa4\xc3\xa4", true},
        {"\xc3\xa4*", "\xc3\xa4x", true},
        {"\xc3\xa4", "\xc3\xb6", false},
        {"[ab]", "a", false}, // no sets and no escapes
        {"[ab]", "[ab]", true},
        {"\\*", "*", false},
        {"\\*", "\\x", true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        cr_expect_eq(gd_pattern_matches(cases[i].pattern, cases[i].name), cases[i].matches, "case %zu: %s and %s", i,
                     cases[i].pattern, cases[i].name);
}

Test(group_names, many_stars_take_no_longer_than_their_bytes) {
    char pattern[NAME_BYTES], name[NAME_BYTES];
    memset(name, 'a', NAME_BYTES - 1);
    name[NAME_BYTES - 1] = '\0';
    for (size_t i = 0; i < NAME_BYTES - 2; i++)
        pattern[i] = i % 2 ? 'a' : '*';
    strcpy(pattern + NAME_BYTES - 2, "b");
    cr_expect(!gd_pattern_matches(pattern, name));
}

// ---- Folding --------------------------------------------------------------------------------------------------------

Test(group_names, names_fold_to_their_first_components) {
    const struct {
        const char *name;
        uint32_t depth;
        const char *folded;
    } cases[] = {
        {"a", 1, "a"},
        {"a", 255, "a"},
        {"a/b/c", 1, "a"},
        {"a/b/c", 2, "a/b"},
        {"a/b/c", 3, "a/b/c"},
        {"a/b/c", 4, "a/b/c"},
        {"a.b/c.d", 1, "a"},
        {"a.b/c.d", 2, "a.b"},
        {"a.b/c.d", 3, "a.b/c"},
        {"/a/b", 1, "/a"},
        {"/a/b", 2, "/a/b"},
        {"a//b/c", 1, "a"},
        {"a//b/c", 2, "a//b"},
        {"a/", 1, "a"},
        {"a/", 2, "a/"},
        {"..", 1, ".."},
        {"a_b-c d", 1, "a_b-c d"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t bytes = gd_group_name_fold(cases[i].name, cases[i].depth);
        cr_expect(bytes == strlen(cases[i].folded) && strncmp(cases[i].name, cases[i].folded, bytes) == 0,
                  "%s to %u: %zu bytes, not %s", cases[i].name, cases[i].depth, bytes, cases[i].folded);
    }
}

// ---- Selection ------------------------------------------------------------------------------------------------------

static struct gd_group_series series;
static struct gd_error error;

// Separated by spaces; `into` holds their bytes.
static uint32_t split(const char *text, char *into, char **ret_parts) {
    uint32_t n = 0;
    strcpy(into, text);
    for (char *part = strtok(into, " "); part; part = strtok(NULL, " "))
        ret_parts[n++] = part;
    return n;
}

struct selection {
    const char *names;
    enum gd_per_group per_group;
    const char *include, *exclude;
    uint32_t fold_depth;
};

static int select_groups(const struct selection *selection) {
    static char bytes[3][1024];
    static char *parts[3][64];
    struct gd_group_selection wanted = {.per_group = selection->per_group, .fold_depth = selection->fold_depth};
    uint32_t n_names = split(selection->names, bytes[0], parts[0]);
    wanted.include = (struct gd_patterns){parts[1], split(selection->include, bytes[1], parts[1])};
    wanted.exclude = (struct gd_patterns){parts[2], split(selection->exclude, bytes[2], parts[2])};
    return gd_group_series_init(&series, &wanted, (const char *const *)parts[0], n_names, &error);
}

Test(group_names, groups_are_selected_and_merged) {
    const struct {
        struct selection selection;
        const char *series;
        const char *of_group; // a digit each, - where it is not shown; "" without series
    } cases[] = {
        {{"b a c", GD_PER_GROUP_IF_FEW, "", "", 0}, "b a c", "012"},
        {{"b a c", GD_PER_GROUP_ALWAYS, "", "", 0}, "b a c", "012"},
        {{"b a c", GD_PER_GROUP_NEVER, "", "", 0}, "", ""},
        {{"b a b a b", GD_PER_GROUP_IF_FEW, "", "", 0}, "b a", "01010"}, // equal names are one series
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "*.w", "", 0}, "a.w b.w", "0-1"},
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "", "*.w", 0}, "a.b", "-0-"},
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "a.* b.*", "a.b", 0}, "a.w b.w", "0-1"}, // exclude wins
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "a.w", "*", 0}, "", ""},
        {{"a.w a.b b.w", GD_PER_GROUP_ALWAYS, "x", "", 0}, "", ""},
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "", "", 1}, "a b", "001"},
        {{"b.w a.w b/b a.b b", GD_PER_GROUP_IF_FEW, "", "", 1}, "b a", "01010"},
        {{"a.w a/w a.wx", GD_PER_GROUP_IF_FEW, "", "", 2}, "a.w a/w a.wx", "012"},
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "*.w", "", 1}, "a b", "0-1"}, // patterns are of the whole name
        {{"a.w a.b b.w", GD_PER_GROUP_IF_FEW, "a", "", 1}, "", ""},
        {{"ab a abc", GD_PER_GROUP_IF_FEW, "", "", 0}, "ab a abc", "012"},
        {{"1 2 3 4 5 6 7 8", GD_PER_GROUP_IF_FEW, "", "", 0}, "1 2 3 4 5 6 7 8", "01234567"},
        {{"1 2 3 4 5 6 7 8 9", GD_PER_GROUP_IF_FEW, "", "", 0}, "", ""},
        {{"1 2 3 4 5 6 7 8 9", GD_PER_GROUP_ALWAYS, "", "", 0}, "1 2 3 4 5 6 7 8 9", "012345678"},
        {{"1 2 3 4 5 6 7 8 9", GD_PER_GROUP_IF_FEW, "", "5", 0}, "1 2 3 4 6 7 8 9", "0123-4567"},
        {{"1 2 3 4 5 6 7 8 9.a 9.b", GD_PER_GROUP_IF_FEW, "", "1", 1}, "2 3 4 5 6 7 8 9", "-012345677"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char bytes[1024];
        char *expected[64];
        uint32_t n_expected = split(cases[i].series, bytes, expected);
        cr_assert_eq(select_groups(&cases[i].selection), 0, "case %zu: %s", i, error.text);
        cr_assert_eq(series.n_series, n_expected, "case %zu: %u series", i, series.n_series);
        for (uint32_t s = 0; s < n_expected; s++)
            cr_expect_str_eq(series.name[s], expected[s], "case %zu", i);
        for (uint32_t g = 0; cases[i].of_group[g]; g++) {
            char digit = cases[i].of_group[g];
            uint32_t of_group = digit == '-' ? GD_NO_SERIES : (uint32_t)(digit - '0');
            cr_expect_eq(gd_group_series_of(&series, g), of_group, "case %zu: group %u is in %u", i, g,
                         gd_group_series_of(&series, g));
        }
        if (n_expected == 0)
            cr_expect_eq(gd_group_series_of(&series, 0), GD_NO_SERIES, "case %zu", i);
        gd_group_series_deinit(&series);
    }
}

// ---- Limits ---------------------------------------------------------------------------------------------------------

static char (*made)[NAME_BYTES];
static const char *made_names[NAMES_MAX];

// Names of `bytes` bytes that differ in their first component.
static void make_names(uint32_t n_names, int bytes) {
    made = calloc(n_names, sizeof(*made));
    cr_assert_not_null(made);
    for (uint32_t i = 0; i < n_names; i++) {
        snprintf(made[i], NAME_BYTES, "%u/%0*d", i, bytes - 1 - snprintf(NULL, 0, "%u", i), 0);
        made_names[i] = made[i];
    }
}

static void free_names(void) {
    free(made);
    gd_group_series_deinit(&series);
}

static int select_made(const struct gd_group_selection *selection, uint32_t n_names) {
    error = (struct gd_error){.field = "", .text = ""};
    return gd_group_series_init(&series, selection, made_names, n_names, &error);
}

static void expect_error(const char *field, const char *value, const char *limit) {
    cr_expect_eq(error.code, GD_ERROR_INVALID);
    cr_expect_str_eq(error.field, field);
    cr_expect(strstr(error.text, value) && strstr(error.text, limit), "%s", error.text);
    cr_expect(series.n_series == 0 && !series.name && !series.of_group);
}

Test(group_names, a_run_shows_at_most_4096_names, .fini = free_names) {
    struct gd_group_selection selection = {.per_group = GD_PER_GROUP_ALWAYS};
    make_names(5000, 12);
    cr_assert_eq(select_made(&selection, GRADIENTD_PER_GROUP_MAX), 0, "%s", error.text);
    cr_expect_eq(series.n_series, GRADIENTD_PER_GROUP_MAX);
    gd_group_series_deinit(&series);

    cr_expect_eq(select_made(&selection, GRADIENTD_PER_GROUP_MAX + 1), -EBADMSG);
    expect_error("per_group", "4097", "4096");
    cr_expect(strstr(error.text, "include") && strstr(error.text, "fold_depth"), "%s", error.text);

    char text[] = "1*", *pattern = text; // what is left counts
    selection.include = (struct gd_patterns){&pattern, 1};
    cr_assert_eq(select_made(&selection, 5000), 0, "%s", error.text);
    cr_expect_eq(series.n_series, 1111);
}

Test(group_names, matching_has_a_limit, .fini = free_names) {
    char texts[][10] = {"*12345678", "*1234567x"};
    char *patterns[] = {texts[0], texts[1]}; // 18 bytes
    make_names(NAMES_MAX, 255);
    struct gd_group_selection selection = {.per_group = GD_PER_GROUP_ALWAYS, .include = {patterns, 1}};
    cr_expect_eq(select_made(&selection, NAMES_MAX), 0, "%s", error.text); // 9 x 65,536 x 255 = 0.56 x 2^28

    selection.include.n_patterns = 2;
    cr_expect_eq(select_made(&selection, NAMES_MAX), -EBADMSG);
    expect_error("include", "16711680", "268435456");
    selection.include.n_patterns = 1;
    selection.exclude = (struct gd_patterns){patterns + 1, 1};
    cr_expect_eq(select_made(&selection, NAMES_MAX), -EBADMSG);
    expect_error("exclude", "18 bytes", "268435456");
    selection.per_group = GD_PER_GROUP_NEVER; // nothing is matched
    cr_expect_eq(select_made(&selection, NAMES_MAX), 0, "%s", error.text);
}

// 65,536 names that fold to 4,096, alike in all but their last bytes. Pairwise it would be 2^32 comparisons.
Test(group_names, folding_is_fast, .fini = free_names) {
    made = calloc(NAMES_MAX, sizeof(*made));
    cr_assert_not_null(made);
    for (uint32_t i = 0; i < NAMES_MAX; i++) {
        snprintf(made[i], NAME_BYTES, "%0200d%04u/%u", 0, i % 4096, i);
        made_names[i] = made[i];
    }
    const struct gd_group_selection selection = {.per_group = GD_PER_GROUP_ALWAYS, .fold_depth = 1};
    clock_t before = clock();
    cr_assert_eq(select_made(&selection, NAMES_MAX), 0, "%s", error.text);
    cr_expect_lt((double)(clock() - before) / CLOCKS_PER_SEC, 2.0);
    cr_assert_eq(series.n_series, 4096);
    for (uint32_t i = 0; i < NAMES_MAX; i++)
        cr_assert_eq(gd_group_series_of(&series, i), i % 4096);
}

// ---- Bytes ----------------------------------------------------------------------------------------------------------

Test(group_names, what_it_takes_is_known_before, .fini = free_names) {
    const uint32_t counts[] = {1, 8, 4096};
    const struct gd_group_selection selection = {.per_group = GD_PER_GROUP_ALWAYS};
    make_names(4096, 100);
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        uint64_t names_bytes = 0;
        for (uint32_t name = 0; name < counts[i]; name++)
            names_bytes += strlen(made_names[name]);
        allocated_bytes = allocations = 0;
        cr_assert_eq(select_made(&selection, counts[i]), 0, "%s", error.text);
        uint64_t most = gd_group_series_bytes_max(counts[i], names_bytes);
        cr_expect_leq(allocated_bytes, most, "%u names", counts[i]);
        cr_expect_geq(allocated_bytes + 64 * allocations, most, "%u names", counts[i]);
        uint64_t kept = gd_group_series_bytes(&series, counts[i]);
        cr_expect(kept > names_bytes + 4 * counts[i] && kept < most, "%u names", counts[i]);
        gd_group_series_deinit(&series);
    }
    cr_expect_eq(gd_group_series_bytes(&series, 4096), 0);
}
