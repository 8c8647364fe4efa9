#include "tag_table.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

// The tree compares names; a node's is that of its tag.
static int compare(const void *left, const void *right) {
    return strcmp(left, right);
}

static struct gd_known_tag *tag_of(void *node) {
    return (struct gd_known_tag *)(*(char **)node - offsetof(struct gd_known_tag, name));
}

static void free_tag(void *name) {
    free((char *)name - offsetof(struct gd_known_tag, name));
}

void gd_tag_table_deinit(struct gd_tag_table *table) {
    tdestroy(table->root, free_tag);
    *table = (struct gd_tag_table){0};
}

static int add_tag(struct gd_tag_table *table, const char *name, struct gd_known_tag **ret_tag) {
    if (table->n_tags == GD_TAG_TABLE_TAGS_MAX)
        return -ENOSPC;
    size_t name_bytes = strlen(name) + 1;
    struct gd_known_tag *tag = calloc(1, sizeof(*tag) + name_bytes);
    if (!tag)
        return -ENOMEM;
    memcpy(tag->name, name, name_bytes);
    if (!tsearch(tag->name, &table->root, compare)) {
        free(tag);
        return -ENOMEM;
    }
    table->n_tags++;
    *ret_tag = tag;
    return 0;
}

int gd_tag_table_use(struct gd_tag_table *table, const char *name, struct gd_known_tag **ret_tag) {
    void *node = tfind(name, &table->root, compare);
    if (!node)
        return add_tag(table, name, ret_tag);
    *ret_tag = tag_of(node);
    return 0;
}
