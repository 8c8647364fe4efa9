// Built without libacl: files are the daemon's alone.
#include <errno.h>

#include "folder_acl.h"

int gd_folder_acl_share(int folder, uid_t uid, gid_t admin_group) {
    (void)folder;
    (void)uid;
    (void)admin_group;
    return -ENOSYS;
}
