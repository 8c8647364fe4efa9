#include "clear_user_tags.h"

#include "../../daemon/user_tags.c" // for the inside of a table

// The reserved names were there first: none of them lies where it does because of a user tag.
void clear_user_tags(struct gd_user_tags *tags) {
    for (uint32_t i = 0; i < tags->used; i++) {
        free(tags->by_index[i]->name);
        *tags->by_index[i] = (struct user_tag){.name = NULL};
        tags->by_index[i] = NULL;
    }
    tags->used = tags->guessed = 0;
}
