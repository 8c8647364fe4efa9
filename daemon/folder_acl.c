#include "folder_acl.h"

#include <acl/libacl.h>
#include <errno.h>
#include <fts.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/acl.h>

enum { TEXT_BYTES = 128, PATH_BYTES = 32 };

// What a folder's directories and files get. Directories have theirs as the default too, which is what the files
// created in them inherit, bounded by their mode.
struct rights {
    acl_t directory;
    acl_t file;
};

static acl_t new_acl(uid_t uid, gid_t admin_group, const char *owner, const char *reader) {
    char text[TEXT_BYTES], group[TEXT_BYTES / 2] = "";
    if (admin_group != (gid_t)-1)
        snprintf(group, sizeof(group), "g:%u:%s,", (unsigned)admin_group, reader);
    snprintf(text, sizeof(text), "u::%s,u:%u:%s,g::---,%sm::%s,o::---", owner, (unsigned)uid, reader, group, reader);
    return acl_from_text(text);
}

// deinit_rights() is due whatever it returns.
static int init_rights(struct rights *rights, uid_t uid, gid_t admin_group) {
    rights->file = NULL;
    rights->directory = new_acl(uid, admin_group, "rwx", "r-x");
    if (rights->directory)
        rights->file = new_acl(uid, admin_group, "rw-", "r--");
    return rights->file ? 0 : -errno;
}

static void deinit_rights(struct rights *rights) {
    if (rights->directory)
        acl_free(rights->directory);
    if (rights->file)
        acl_free(rights->file);
}

// 1: the directory's ACL of that type is this one; 0: it is not; or a negative errno.
static int has_acl(const char *path, acl_type_t type, acl_t expected) {
    acl_t acl = acl_get_file(path, type);
    if (!acl)
        return -errno;
    int differs = acl_cmp(acl, expected);
    int result = differs < 0 ? -errno : !differs;
    acl_free(acl);
    return result;
}

// As has_acl(), of both types.
static int is_shared(const char *path, const struct rights *rights) {
    int result = has_acl(path, ACL_TYPE_DEFAULT, rights->directory);
    return result > 0 ? has_acl(path, ACL_TYPE_ACCESS, rights->directory) : result;
}

static int share_directory(const char *path, const struct rights *rights) {
    if (acl_set_file(path, ACL_TYPE_ACCESS, rights->directory) < 0)
        return -errno;
    return acl_set_file(path, ACL_TYPE_DEFAULT, rights->directory) < 0 ? -errno : 0;
}

static int share_entry(const FTSENT *entry, const struct rights *rights) {
    switch (entry->fts_info) {
    case FTS_DP: // after what is in it: a folder that has its ACL is one that was gone through
        return share_directory(entry->fts_accpath, rights);
    case FTS_F:
        return acl_set_file(entry->fts_accpath, ACL_TYPE_ACCESS, rights->file) < 0 ? -errno : 0;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return -entry->fts_errno;
    default:
        return 0;
    }
}

// The folder and what is in it; links are not followed, but for the one that `path` is.
static int share_tree(char *path, const struct rights *rights) {
    int result = 0;
    FTS *tree = fts_open((char *[]){path, NULL}, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR | FTS_XDEV, NULL);
    if (!tree)
        return -errno;
    errno = 0;
    for (FTSENT *entry; result == 0 && (entry = fts_read(tree)); errno = 0)
        result = share_entry(entry, rights);
    if (result == 0)
        result = -errno;
    fts_close(tree);
    return result;
}

int gd_folder_acl_share(int folder, uid_t uid, gid_t admin_group) {
    char path[PATH_BYTES]; // libacl sets default ACLs by path alone, and none at all by a descriptor that is O_PATH
    struct rights rights;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", folder);
    int result = init_rights(&rights, uid, admin_group);
    if (result == 0)
        result = is_shared(path, &rights);
    if (result == 0)
        result = share_tree(path, &rights);
    deinit_rights(&rights);
    return result < 0 ? result : 0;
}
