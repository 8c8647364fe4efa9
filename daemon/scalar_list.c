#include "scalar_list.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t quantities_shown(uint64_t shown) {
    return (size_t)__builtin_popcountll(shown);
}

static size_t capacity_of(const struct gd_open_run *open_run) {
    size_t side_tags = gd_open_run_sides_before(open_run, GD_SIDES) > 0 ? GD_SIDE_TAG_COUNT : 0;
    return GD_TAG_COUNT + side_tags + (size_t)open_run->n_shadows * GD_ADAM_TAGS + GRADIENTD_USER_TAGS_MAX +
           open_run->series.n_series * quantities_shown(gd_open_run_quantities(open_run));
}

// Every series' tags. Returns their bytes; writes them where the list has room, which is as many.
static size_t write_group_tags(const struct gd_open_run *open_run, struct gd_scalar_list *list) {
    uint64_t shown = gd_open_run_quantities(open_run);
    size_t n_tags = 0, bytes = 0;
    for (uint32_t i = 0; i < open_run->series.n_series; i++) {
        const char *name = open_run->series.name[i];
        size_t name_bytes = strlen(name) + 1;
        for (enum gd_group_quantity quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++) {
            struct gd_tag_text text;
            if (!(shown >> quantity & 1))
                continue;
            gd_group_tag_describe(quantity, &text);
            size_t prefix_bytes = strlen(text.name);
            if (list) {
                char *tag = list->group_tags[n_tags++] = list->group_tag_text + bytes;
                memcpy(tag, text.name, prefix_bytes);
                memcpy(tag + prefix_bytes, name, name_bytes);
            }
            bytes += prefix_bytes + name_bytes;
        }
    }
    return bytes;
}

uint64_t gd_scalar_list_bytes(const struct gd_open_run *open_run) {
    const struct gd_scalar_list *list = NULL;
    uint64_t capacity = capacity_of(open_run);
    return sizeof(*list) + capacity * (sizeof(*list->scalars) + sizeof(*list->group_tags)) +
           write_group_tags(open_run, NULL);
}

static void describe_tags(const struct gd_open_run *open_run, struct gd_scalar_list *list) {
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++) {
        gd_tag_describe(tag, &list->own[tag]);
        for (uint32_t i = 0; i < open_run->n_shadows && gd_tag_is_adam(tag); i++)
            gd_tag_describe_shadow(open_run->shadows[i].rule, tag, &list->shadows[i][tag]);
    }
    for (enum gd_side_tag tag = 0; tag < GD_SIDE_TAG_COUNT; tag++)
        gd_side_tag_describe(tag, gd_open_run_measures_from(open_run, tag), &list->sides[tag]);
    for (enum gd_group_quantity quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++)
        gd_group_tag_describe(quantity, &list->quantities[quantity]);
}

int gd_scalar_list_new(const struct gd_open_run *open_run, struct gd_scalar_list **ret_list) {
    struct gd_scalar_list *list = calloc(1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    describe_tags(open_run, list);
    list->shown = gd_open_run_quantities(open_run);
    list->capacity = capacity_of(open_run);
    list->scalars = calloc(list->capacity, sizeof(*list->scalars));
    list->group_tags = calloc(list->capacity, sizeof(*list->group_tags));
    list->group_tag_text = malloc(write_group_tags(open_run, NULL) + 1);
    if (!list->scalars || !list->group_tags || !list->group_tag_text) {
        gd_scalar_list_free(list);
        return -ENOMEM;
    }
    write_group_tags(open_run, list);
    *ret_list = list;
    return 0;
}

void gd_scalar_list_free(struct gd_scalar_list *list) {
    if (!list)
        return;
    free(list->scalars);
    free(list->group_tags);
    free(list->group_tag_text);
    free(list);
}

void gd_scalar_list_clear(struct gd_scalar_list *list) {
    list->n_scalars = 0;
}

// `description` NULL: the tag has its metadata already.
static void add(struct gd_scalar_list *list, const char *tag, float value, const char *description) {
    assert(list->n_scalars < list->capacity);
    list->scalars[list->n_scalars++] = gd_scalar_of(tag, value, description);
}

// Bit `index` of `described`, which is then set.
static bool is_first(uint64_t *described, unsigned index) {
    uint64_t bit = UINT64_C(1) << index % 64;
    bool first = !(described[index / 64] & bit);
    described[index / 64] |= bit;
    return first;
}

static void add_value(struct gd_scalar_list *list, const struct gd_tag_text *text, enum gd_tag tag,
                      const struct gd_values *values, uint64_t *described) {
    if (gd_values_has(values, tag))
        add(list, text->name, (float)values->value[tag], is_first(described, tag) ? text->description : NULL);
}

void gd_scalar_list_add_values(struct gd_scalar_list *list, const struct gd_values *values, uint64_t *described) {
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++)
        add_value(list, &list->own[tag], tag, values, described);
}

void gd_scalar_list_add_shadow_values(struct gd_scalar_list *list, uint32_t shadow, const struct gd_values *values,
                                      uint64_t *described) {
    for (enum gd_tag tag = 0; tag < GD_TAG_COUNT; tag++)
        if (gd_tag_is_adam(tag))
            add_value(list, &list->shadows[shadow][tag], tag, values, described);
}

void gd_scalar_list_add_side_values(struct gd_scalar_list *list, const struct gd_side_values *values,
                                    uint64_t *described) {
    for (enum gd_side_tag tag = 0; tag < GD_SIDE_TAG_COUNT; tag++)
        if (gd_side_values_has(values, tag))
            add(list, list->sides[tag].name, (float)values->value[tag],
                is_first(described, tag) ? list->sides[tag].description : NULL);
}

void gd_scalar_list_add_group_values(struct gd_scalar_list *list, uint32_t series, const struct gd_group_values *values,
                                     uint64_t *described) {
    char **tag = list->group_tags + series * quantities_shown(list->shown);
    for (enum gd_group_quantity quantity = 0; quantity < GD_GROUP_QUANTITIES; quantity++) {
        if (!(list->shown >> quantity & 1))
            continue;
        if (values->present >> quantity & 1)
            add(list, *tag, (float)values->value[quantity],
                is_first(described, quantity) ? list->quantities[quantity].description : NULL);
        tag++;
    }
}

void gd_scalar_list_add(struct gd_scalar_list *list, const char *tag, float value, bool first) {
    add(list, tag, value, first ? "" : NULL);
}
