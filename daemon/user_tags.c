#include "user_tags.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "gradientd/protocol.h"
#include "group_tags.h"
#include "quota.h"
#include "side_tags.h"

enum {
    TABLE_SIZE = 4096, // open addressing, at most a quarter full; a power of two
    USED_MAX = GRADIENTD_USER_TAGS_MAX + GD_TAG_COUNT + GD_SIDE_TAG_COUNT,
};

struct user_tag {
    char *name;                // owned
    int64_t step, step_before; // the last one, and the one ahead of it
    uint32_t index;            // UINT32_MAX: reserved
};

struct gd_user_tags {
    uint64_t key[3];
    uint32_t used;    // user tags, without the reserved ones
    uint32_t guessed; // index of the one that may come next: trainers name theirs in the same order each step
    struct user_tag *by_index[GRADIENTD_USER_TAGS_MAX];
    struct user_tag table[TABLE_SIZE];
};

static_assert(USED_MAX * 2 < TABLE_SIZE, "probing ends at a free entry");

// A polynomial in key[0] over the field of this prime, then an affine map. The key is not known outside, so two names
// share a place with a chance of 1 / TABLE_SIZE plus that of a common root, 256 / HASH_PRIME, whoever chose them
// (Carter and Wegman 1979).
static const uint64_t HASH_PRIME = 2147483647; // 2^31 - 1

static uint32_t hash(const struct gd_user_tags *tags, const char *name) {
    uint64_t value = 1;
    for (const char *c = name; *c; c++)
        value = (value * tags->key[0] + (unsigned char)*c) % HASH_PRIME;
    return (uint32_t)((value * tags->key[1] + tags->key[2]) % HASH_PRIME % TABLE_SIZE);
}

static int draw_key(struct gd_user_tags *tags) {
    uint32_t random[3];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -EIO;
    for (int i = 0; i < 3; i++)
        tags->key[i] = random[i] % (HASH_PRIME - 1) + 1;
    return 0;
}

static struct user_tag *find(struct gd_user_tags *tags, const char *name) {
    for (uint32_t at = hash(tags, name);; at = (at + 1) % TABLE_SIZE)
        if (!tags->table[at].name || strcmp(tags->table[at].name, name) == 0)
            return &tags->table[at];
}

static struct user_tag *find_guessing(struct gd_user_tags *tags, const char *name) {
    struct user_tag *guess = tags->by_index[tags->guessed];
    return guess && strcmp(guess->name, name) == 0 ? guess : find(tags, name);
}

uint64_t gd_user_tags_bytes_max(void) {
    return sizeof(struct gd_user_tags) + USED_MAX * (GRADIENTD_NAME_BYTES_MAX + 1 + GD_BLOCK_BYTES);
}

static int reserve(struct gd_user_tags *tags, const char *name) {
    struct user_tag *entry = find(tags, name);
    entry->index = UINT32_MAX;
    entry->name = strdup(name);
    return entry->name ? 0 : -ENOMEM;
}

// The names of what the daemon itself shows.
static int reserve_own(struct gd_user_tags *tags) {
    struct gd_tag_text text;
    int result = 0;
    for (enum gd_tag tag = 0; result == 0 && tag < GD_TAG_COUNT; tag++) {
        gd_tag_describe(tag, &text);
        result = reserve(tags, text.name);
    }
    for (enum gd_side_tag tag = 0; result == 0 && tag < GD_SIDE_TAG_COUNT; tag++) {
        gd_side_tag_describe(tag, 0, &text);
        result = reserve(tags, text.name);
    }
    return result;
}

int gd_user_tags_new(struct gd_user_tags **ret_tags) {
    struct gd_user_tags *tags = calloc(1, sizeof(*tags));
    if (!tags)
        return -ENOMEM;
    int result = draw_key(tags);
    if (result == 0)
        result = reserve_own(tags);
    if (result < 0) {
        gd_user_tags_free(tags);
        return result;
    }
    *ret_tags = tags;
    return 0;
}

void gd_user_tags_free(struct gd_user_tags *tags) {
    if (!tags)
        return;
    for (uint32_t i = 0; i < TABLE_SIZE; i++)
        free(tags->table[i].name);
    free(tags);
}

static int add(struct gd_user_tags *tags, struct user_tag *entry, const char *name, struct gd_error *ret_error) {
    if (tags->used == GRADIENTD_USER_TAGS_MAX)
        return gd_error_set(ret_error, GD_ERROR_QUOTA, "scalars.tag", "a run has at most %d tags of its own",
                            GRADIENTD_USER_TAGS_MAX);
    entry->name = strdup(name);
    if (!entry->name)
        return -ENOMEM;
    entry->index = tags->used;
    entry->step = -1;
    tags->by_index[tags->used++] = entry;
    return 0;
}

int gd_user_tags_use(struct gd_user_tags *tags, const char *tag, int64_t step, uint32_t *ret_index,
                     struct gd_error *ret_error) {
    struct user_tag *entry = find_guessing(tags, tag);
    bool is_new = !entry->name;
    if (is_new ? gd_tag_is_reserved(tag) || gd_group_tag_is(tag) : entry->index == UINT32_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "scalars.tag",
                            "scalars.tag is one the daemon writes itself: %s", tag);
    if (is_new) {
        int result = add(tags, entry, tag, ret_error);
        if (result < 0)
            return result;
    }
    if (step <= entry->step)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "step", "step %lld of a tag is not above its last one, %lld",
                            (long long)step, (long long)entry->step);
    entry->step_before = entry->step;
    entry->step = step;
    *ret_index = entry->index;
    tags->guessed = (entry->index + 1) % tags->used;
    return 0;
}

void gd_user_tags_undo(struct gd_user_tags *tags, uint32_t index) {
    tags->by_index[index]->step = tags->by_index[index]->step_before;
}

const char *gd_user_tags_name(const struct gd_user_tags *tags, uint32_t index) {
    return tags->by_index[index]->name;
}
