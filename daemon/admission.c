#include "admission.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "text.h"

enum {
    NAME_BYTES = 256,
    LIST_SHOWN_BYTES = 100, // of a list in an error, which must have room for the entry that is wrong
};

static const uint32_t id_max = UINT32_MAX - 1; // (uid_t)-1 is nobody's

// The number that `text` is, or false.
static bool read_id(const char *text, uint32_t *ret_id) {
    char *end;
    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno != 0 || id > id_max)
        return false;
    *ret_id = (uint32_t)id;
    return true;
}

static bool find_user(const char *text, uint32_t *ret_id) {
    const struct passwd *user = getpwnam(text);
    if (!user)
        return read_id(text, ret_id);
    *ret_id = user->pw_uid;
    return true;
}

static bool find_group(const char *text, uint32_t *ret_id) {
    const struct group *group = getgrnam(text);
    if (!group)
        return read_id(text, ret_id);
    *ret_id = group->gr_gid;
    return true;
}

int gd_admission_find_group(const char *field, const char *name, const char *text, gid_t *ret_group,
                            struct gd_error *ret_error) {
    if (find_group(text, ret_group))
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %s, which is no group of this machine", name, text);
}

// An entry of a list without the spaces around it.
static void trim(const char **entry, size_t *bytes) {
    while (*bytes > 0 && **entry == ' ')
        ++*entry, --*bytes;
    while (*bytes > 0 && (*entry)[*bytes - 1] == ' ')
        --*bytes;
}

// Adds what a list names to `list`.
static int add_list(struct gd_admission_list *list, const char *field, const char *name, const char *text,
                    bool (*find)(const char *text, uint32_t *ret_id), struct gd_error *ret_error) {
    list->given = true;
    for (const char *at = text; at;) {
        char id_name[NAME_BYTES];
        const char *comma = strchr(at, ','), *entry = at;
        size_t bytes = comma ? (size_t)(comma - at) : strlen(at);
        trim(&entry, &bytes);
        if (list->n_ids == GD_ADMITTED_MAX)
            return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s has more than %d entries", name,
                                GD_ADMITTED_MAX);
        if (bytes < sizeof(id_name)) {
            memcpy(id_name, entry, bytes);
            id_name[bytes] = '\0';
        }
        if (bytes == 0 || bytes >= sizeof(id_name) || !find(id_name, &list->ids[list->n_ids]))
            return gd_error_set(ret_error, GD_ERROR_INVALID, field,
                                "%s is %.*s, in which %.*s is nobody of this machine", name,
                                (int)gd_text_clean_bytes(text, strnlen(text, LIST_SHOWN_BYTES)), text, (int)bytes,
                                entry);
        ++list->n_ids;
        at = comma ? comma + 1 : NULL;
    }
    return 0;
}

int gd_admission_add_users(struct gd_admission_list *list, const char *field, const char *name, const char *text,
                           struct gd_error *ret_error) {
    return add_list(list, field, name, text, find_user, ret_error);
}

int gd_admission_add_groups(struct gd_admission_list *list, const char *field, const char *name, const char *text,
                            struct gd_error *ret_error) {
    return add_list(list, field, name, text, find_group, ret_error);
}

static bool has_id(const uint32_t *ids, uint32_t count, uint32_t id) {
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

// Whether one of the groups that the peer had when it connected is among `ids`.
static bool peer_has_group(int fd, const gid_t *ids, uint32_t count) {
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && has_id(ids, count, peer.gid))
        return true;

    bytes = GD_GROUPS_OF_USER_MAX * sizeof(gid_t);
    gid_t *groups = malloc(bytes);
    bool found = false;
    if (groups && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) == 0)
        for (size_t i = 0; !found && i < bytes / sizeof(gid_t); i++)
            found = has_id(ids, count, groups[i]);
    free(groups);
    return found;
}

int gd_admission_check(const struct gd_admission *admission, int fd, uid_t uid, struct gd_error *ret_error) {
    const struct gd_admission_list *users = &admission->users, *groups = &admission->groups;
    if ((!users->given && !groups->given) || uid == 0 || uid == geteuid() || has_id(users->ids, users->n_ids, uid) ||
        (groups->given && peer_has_group(fd, groups->ids, groups->n_ids)))
        return 0;
    return gd_error_set(ret_error, GD_ERROR_FORBIDDEN, "user",
                        "user is %u, whom this daemon does not serve: neither allow-users nor allow-groups has it",
                        uid);
}

bool gd_admission_sees_all(int fd, uid_t uid, gid_t admin_group) {
    return uid == 0 || uid == geteuid() || (admin_group != (gid_t)-1 && peer_has_group(fd, &admin_group, 1));
}
