// The trainer's own scalar tags of one run: name to index, and the last step of each. Own tags are reserved. Places in
// the table depend on a key drawn for it, so no choice of names makes looking them up slow.
#pragma once

#include <stdint.h>

#include "error.h"

struct gd_user_tags;

// What a table takes at most, however many tags are used.
uint64_t gd_user_tags_bytes_max(void);

// Returns 0, -ENOMEM, or -EIO when the kernel gives no random key.
__attribute__((warn_unused_result)) int gd_user_tags_new(struct gd_user_tags **ret_tags);
void gd_user_tags_free(struct gd_user_tags *tags);

// The index of `tag` (0, 1, ... in the order of first use) for a value at `step`, which must be above the tag's last
// one. Returns 0, or a negative errno with *ret_error set: no room for another tag, a step that does not rise, or a
// name that is the daemon's own.
__attribute__((warn_unused_result)) int gd_user_tags_use(struct gd_user_tags *tags, const char *tag, int64_t step,
                                                         uint32_t *ret_index, struct gd_error *ret_error);

// Takes back the last gd_user_tags_use() that gave `index`: the tag's step is what it was before.
void gd_user_tags_undo(struct gd_user_tags *tags, uint32_t index);

// The name at an index that gd_user_tags_use() gave.
const char *gd_user_tags_name(const struct gd_user_tags *tags, uint32_t index);
