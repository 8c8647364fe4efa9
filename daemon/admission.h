// Which users the daemon serves, of those whom the socket's mode lets connect.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

enum {
    GD_ADMITTED_MAX = 256,         // users, and groups; more of them make a group of their own
    GD_GROUPS_OF_USER_MAX = 65536, // what the kernel lets a process have
};

struct gd_admission_list {
    bool given;
    uint32_t n_ids;
    uint32_t ids[GD_ADMITTED_MAX]; // of users or groups
};

// {0} admits everybody.
struct gd_admission {
    struct gd_admission_list users, groups;
};

// Adds the users, or the groups, that `text` names: names or numbers, separated by commas, with spaces around them.
// `field` and `name` are what the list is called in *ret_error and in its text. Returns 0 or -EBADMSG.
__attribute__((warn_unused_result)) int gd_admission_add_users(struct gd_admission_list *list, const char *field,
                                                               const char *name, const char *text,
                                                               struct gd_error *ret_error);
__attribute__((warn_unused_result)) int gd_admission_add_groups(struct gd_admission_list *list, const char *field,
                                                                const char *name, const char *text,
                                                                struct gd_error *ret_error);

// The group that `text`, a name or a number, means. Returns 0 or -EBADMSG.
__attribute__((warn_unused_result)) int gd_admission_find_group(const char *field, const char *name, const char *text,
                                                                gid_t *ret_group, struct gd_error *ret_error);

// Whether the peer of the connected socket `fd`, of user `uid`, may be served: everybody where there is no list, else
// who is in one of them, by any of its groups, and always root and the daemon's own user. Returns 0, or -EBADMSG with
// *ret_error set (FORBIDDEN).
__attribute__((warn_unused_result)) int gd_admission_check(const struct gd_admission *admission, int fd, uid_t uid,
                                                           struct gd_error *ret_error);

// Whether the peer of the connected socket `fd`, of user `uid`, may see what concerns other users: root, the daemon's
// own user, and who is in `admin_group` ((gid_t)-1: there is none).
bool gd_admission_sees_all(int fd, uid_t uid, gid_t admin_group);
