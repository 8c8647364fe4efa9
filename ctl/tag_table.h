// What is known of each tag of a file. A tree that stays balanced: no choice of names makes looking them up slow.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum {
    GD_TAG_TABLE_TAGS_MAX = 1 << 20,    // keeps a hostile file from taking all memory
    GD_TAG_TABLE_PLUGIN_BYTES_MAX = 32, // with the terminating 0; longer names are not remembered
};

struct gd_known_tag {
    int64_t last_step;
    uint64_t n_values;                          // the user's count
    char plugin[GD_TAG_TABLE_PLUGIN_BYTES_MAX]; // that shows it, "": unknown
    char name[];
};

// Zeroed is empty.
struct gd_tag_table {
    void *root;
    size_t n_tags;
};

void gd_tag_table_deinit(struct gd_tag_table *table);

// Finds a tag, or adds it with nothing known of it. Returns 0, -ENOMEM, or -ENOSPC when there are
// GD_TAG_TABLE_TAGS_MAX others. *ret_tag stays the table's.
__attribute__((warn_unused_result)) int gd_tag_table_use(struct gd_tag_table *table, const char *name,
                                                         struct gd_known_tag **ret_tag);
