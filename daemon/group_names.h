// Which groups a run shows one by one, and under which names. Pure.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum gd_per_group {
    GD_PER_GROUP_IF_FEW, // at most GRADIENTD_PER_GROUP_DEFAULT series
    GD_PER_GROUP_NEVER,
    GD_PER_GROUP_ALWAYS, // all quantities, at most GRADIENTD_PER_GROUP_MAX series
};

// Patterns of whole names: `*` stands for any characters, '/' included, `?` for one. Patterns and names are valid
// UTF-8.
struct gd_patterns {
    char **pattern; // owned, and so is each
    uint32_t n_patterns;
};

// A group is shown if `include` is empty or has a pattern it matches, and `exclude` has none.
struct gd_group_selection {
    enum gd_per_group per_group;
    struct gd_patterns include;
    struct gd_patterns exclude;
    uint32_t fold_depth; // names are cut to their first so many components, 0: they are not
};

void gd_group_selection_deinit(struct gd_group_selection *selection);

#define GD_NO_SERIES UINT32_MAX

// The series that are shown. Groups that are shown under one name make one series.
struct gd_group_series {
    uint32_t n_series;
    char **name;        // owned, and so is each; in the order of their first groups
    uint32_t *of_group; // owned, per group; GD_NO_SERIES: not shown. NULL where there is no series
};

static inline uint32_t gd_group_series_of(const struct gd_group_series *series, uint32_t group) {
    return series->n_series > 0 ? series->of_group[group] : GD_NO_SERIES;
}

// What a selection and its series take, and what gd_group_series_init() takes at most for names of `names_bytes` in
// all, while it works and afterwards.
uint64_t gd_group_selection_bytes(const struct gd_group_selection *selection);
uint64_t gd_group_series_bytes(const struct gd_group_series *series, uint32_t n_names);
uint64_t gd_group_series_bytes_max(uint32_t n_names, uint64_t names_bytes);

// Whether the whole name matches. Takes at most as many steps as the product of their bytes.
bool gd_pattern_matches(const char *pattern, const char *name);

// The bytes of a name's first `depth` components (at least 1). Components end at '/' or '.', and are not empty: what
// separates two of them, or comes before the first, may be several of these.
size_t gd_group_name_fold(const char *name, uint32_t depth);

// Selects and folds. Returns 0; -ENOMEM; or -EBADMSG with *ret_error set for too many series, or for patterns that
// take too long. On failure *ret_series is empty.
__attribute__((warn_unused_result)) int gd_group_series_init(struct gd_group_series *ret_series,
                                                             const struct gd_group_selection *selection,
                                                             const char *const *names, uint32_t n_names,
                                                             struct gd_error *ret_error);
void gd_group_series_deinit(struct gd_group_series *series);
