#include "group_names.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gradientd/protocol.h"
#include "quota.h"

// Steps of matching a run may take when it is opened: about 0.3 s of the daemon's loop at worst.
static const uint64_t MATCH_STEPS_MAX = UINT64_C(1) << 28;

// A group that is shown, and what is left of its name.
struct shown {
    const char *name;
    size_t bytes;
    uint32_t group;
};

static void free_strings(char **strings, uint32_t n) {
    if (strings)
        for (uint32_t i = 0; i < n; i++)
            free(strings[i]);
    free(strings);
}

void gd_group_selection_deinit(struct gd_group_selection *selection) {
    free_strings(selection->include.pattern, selection->include.n_patterns);
    free_strings(selection->exclude.pattern, selection->exclude.n_patterns);
}

void gd_group_series_deinit(struct gd_group_series *series) {
    free_strings(series->name, series->n_series);
    free(series->of_group);
    *series = (struct gd_group_series){0};
}

// The next character's start.
static const char *skip_character(const char *text) {
    for (text++; ((unsigned char)*text & 0xc0) == 0x80; text++)
        ;
    return text;
}

// Only the last `*` can have to take more: what stands before it has matched as early as it can.
bool gd_pattern_matches(const char *pattern, const char *name) {
    const char *after_star = NULL, *star_end = NULL; // the pattern after the last `*`, and where what that took ends

    while (*name) {
        if (*pattern == '*') {
            after_star = ++pattern;
            star_end = name;
        } else if (*pattern == '?') {
            pattern++;
            name = skip_character(name);
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (after_star) {
            pattern = after_star;
            name = star_end = skip_character(star_end);
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

size_t gd_group_name_fold(const char *name, uint32_t depth) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < depth && name[bytes]; i++) {
        bytes += strspn(name + bytes, "/.");
        bytes += strcspn(name + bytes, "/.");
    }
    return bytes;
}

static bool matches_any(const struct gd_patterns *patterns, const char *name) {
    for (uint32_t i = 0; i < patterns->n_patterns; i++)
        if (gd_pattern_matches(patterns->pattern[i], name))
            return true;
    return false;
}

static bool is_selected(const struct gd_group_selection *selection, const char *name) {
    bool included = selection->include.n_patterns == 0 || matches_any(&selection->include, name);
    return included && !matches_any(&selection->exclude, name);
}

static uint64_t string_bytes(char *const *strings, uint32_t n) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += strlen(strings[i]);
    return bytes;
}

static uint64_t strings_bytes(char *const *strings, uint32_t n) {
    return string_bytes(strings, n) + n * (UINT64_C(1) + sizeof(*strings) + GD_BLOCK_BYTES);
}

uint64_t gd_group_selection_bytes(const struct gd_group_selection *selection) {
    return strings_bytes(selection->include.pattern, selection->include.n_patterns) +
           strings_bytes(selection->exclude.pattern, selection->exclude.n_patterns);
}

uint64_t gd_group_series_bytes(const struct gd_group_series *series, uint32_t n_names) {
    if (series->n_series == 0)
        return 0;
    return strings_bytes(series->name, series->n_series) + n_names * sizeof(*series->of_group);
}

uint64_t gd_group_series_bytes_max(uint32_t n_names, uint64_t names_bytes) {
    const struct gd_group_series *series = NULL;
    uint64_t most = n_names < GRADIENTD_PER_GROUP_MAX ? n_names : GRADIENTD_PER_GROUP_MAX;
    return names_bytes + most * (1 + sizeof(*series->name) + GD_BLOCK_BYTES) +
           n_names * (sizeof(*series->of_group) + sizeof(struct shown));
}

static int check_work(const struct gd_group_selection *selection, uint64_t names_bytes, struct gd_error *ret_error) {
    uint64_t include_bytes = string_bytes(selection->include.pattern, selection->include.n_patterns);
    uint64_t bytes = include_bytes + string_bytes(selection->exclude.pattern, selection->exclude.n_patterns);
    if (bytes * names_bytes <= MATCH_STEPS_MAX)
        return 0;
    const char *field = include_bytes * names_bytes > MATCH_STEPS_MAX ? "include" : "exclude";
    return gd_error_set(ret_error, GD_ERROR_INVALID, field,
                        "include and exclude have %llu bytes and the groups' names %llu; the limit of their product is "
                        "%llu",
                        (unsigned long long)bytes, (unsigned long long)names_bytes,
                        (unsigned long long)MATCH_STEPS_MAX);
}

// By name, groups of one name in their own order.
static int compare_shown(const void *a_pointer, const void *b_pointer) {
    const struct shown *a = a_pointer, *b = b_pointer;
    int order = memcmp(a->name, b->name, a->bytes < b->bytes ? a->bytes : b->bytes);
    if (order != 0)
        return order;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return a->group < b->group ? -1 : 1;
}

static bool begins_name(const struct shown *shown, uint32_t i) {
    return i == 0 || shown[i].bytes != shown[i - 1].bytes ||
           memcmp(shown[i].name, shown[i - 1].name, shown[i].bytes) != 0;
}

static size_t shown_bytes(const struct gd_group_selection *selection, const char *name) {
    return selection->fold_depth > 0 ? gd_group_name_fold(name, selection->fold_depth) : strlen(name);
}

// The selected groups, sorted: a table of hashes could be made slow by whoever chooses the names.
static uint32_t list_shown(const struct gd_group_selection *selection, const char *const *names, uint32_t n_names,
                           struct shown *ret_shown) {
    uint32_t n_shown = 0;
    for (uint32_t i = 0; i < n_names; i++)
        if (is_selected(selection, names[i]))
            ret_shown[n_shown++] = (struct shown){names[i], shown_bytes(selection, names[i]), i};
    qsort(ret_shown, n_shown, sizeof(*ret_shown), compare_shown);
    return n_shown;
}

// Numbers the series in the order of their first groups.
static int number_series(struct gd_group_series *series, const struct gd_group_selection *selection,
                         const char *const *names, uint32_t n_names, const struct shown *shown, uint32_t n_shown) {
    uint32_t *of_group = series->of_group;

    // for now the first group of that name, ...
    for (uint32_t i = 0; i < n_names; i++)
        of_group[i] = GD_NO_SERIES;
    for (uint32_t i = 0; i < n_shown; i++)
        of_group[shown[i].group] = begins_name(shown, i) ? shown[i].group : of_group[shown[i - 1].group];

    // ... whose series has its number when a later one is looked at
    for (uint32_t i = 0; i < n_names; i++) {
        if (of_group[i] == GD_NO_SERIES)
            continue;
        if (of_group[i] != i) {
            of_group[i] = of_group[of_group[i]];
            continue;
        }
        char *name = strndup(names[i], shown_bytes(selection, names[i]));
        if (!name)
            return -ENOMEM;
        of_group[i] = series->n_series;
        series->name[series->n_series++] = name;
    }
    return 0;
}

static int build(struct gd_group_series *series, const struct gd_group_selection *selection, const char *const *names,
                 uint32_t n_names, struct shown *shown, struct gd_error *ret_error) {
    uint32_t n_shown = list_shown(selection, names, n_names, shown), n_series = 0;
    for (uint32_t i = 0; i < n_shown; i++)
        n_series += begins_name(shown, i);

    bool always = selection->per_group == GD_PER_GROUP_ALWAYS;
    if (n_series == 0 || (!always && n_series > GRADIENTD_PER_GROUP_DEFAULT))
        return 0;
    if (n_series > GRADIENTD_PER_GROUP_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "per_group",
                            "per_group is true for %u names, the limit is %d; choose some with include and exclude, or "
                            "merge them with fold_depth",
                            n_series, GRADIENTD_PER_GROUP_MAX);
    series->name = calloc(n_series, sizeof(*series->name));
    series->of_group = calloc(n_names, sizeof(*series->of_group));
    if (!series->name || !series->of_group)
        return -ENOMEM;
    return number_series(series, selection, names, n_names, shown, n_shown);
}

int gd_group_series_init(struct gd_group_series *ret_series, const struct gd_group_selection *selection,
                         const char *const *names, uint32_t n_names, struct gd_error *ret_error) {
    assert(n_names > 0);
    *ret_series = (struct gd_group_series){0};
    if (selection->per_group == GD_PER_GROUP_NEVER)
        return 0;
    uint64_t names_bytes = 0;
    for (uint32_t i = 0; i < n_names; i++)
        names_bytes += strlen(names[i]);
    int result = check_work(selection, names_bytes, ret_error);
    if (result < 0)
        return result;

    struct shown *shown = calloc(n_names, sizeof(*shown));
    if (!shown)
        return -ENOMEM;
    result = build(ret_series, selection, names, n_names, shown, ret_error);
    free(shown);
    if (result < 0)
        gd_group_series_deinit(ret_series);
    return result;
}
