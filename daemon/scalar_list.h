// The scalars of one Event, with room for the largest step of a run.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "event.h"
#include "group_tags.h"
#include "message.h"
#include "side_tags.h"

struct gd_scalar_list {
    struct gd_scalar *scalars; // owned; what they point to outlives the Event
    size_t n_scalars, capacity;

    struct gd_tag_text own[GD_TAG_COUNT];
    struct gd_tag_text shadows[GD_SHADOWS_MAX][GD_TAG_COUNT]; // of those that the run has, what shadow rules have
    struct gd_tag_text sides[GD_SIDE_TAG_COUNT];
    struct gd_tag_text quantities[GD_GROUP_QUANTITIES]; // of each group, without its name
    uint64_t shown;                                     // of those, the ones this run shows
    char **group_tags;                                  // owned: the whole tags, series by series; capacity entries
    char *group_tag_text;                               // owned: what they point to
};

// What a run's list takes.
uint64_t gd_scalar_list_bytes(const struct gd_open_run *open_run);

// Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_scalar_list_new(const struct gd_open_run *open_run,
                                                           struct gd_scalar_list **ret_list);
void gd_scalar_list_free(struct gd_scalar_list *list);

void gd_scalar_list_clear(struct gd_scalar_list *list);

// Adds each value there is, with its metadata where it is the tag's first: `described` has a bit per tag, or per
// quantity, that had its metadata before.
void gd_scalar_list_add_values(struct gd_scalar_list *list, const struct gd_values *values, uint64_t *described);
void gd_scalar_list_add_shadow_values(struct gd_scalar_list *list, uint32_t shadow, const struct gd_values *values,
                                      uint64_t *described);
void gd_scalar_list_add_side_values(struct gd_scalar_list *list, const struct gd_side_values *values,
                                    uint64_t *described);
void gd_scalar_list_add_group_values(struct gd_scalar_list *list, uint32_t series, const struct gd_group_values *values,
                                     uint64_t *described);

// Adds one of the trainer's own; `tag` is borrowed.
void gd_scalar_list_add(struct gd_scalar_list *list, const char *tag, float value, bool first);
