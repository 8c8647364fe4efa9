// Who besides the daemon may read what lies in a user's folder of the state directory: that user, and the group that
// sees all users' runs. By POSIX ACLs; built with libacl, or without, when nobody may.
#pragma once

#include <sys/types.h>

// The modes of what is created in a folder with ACLs: there the group's bits bound what the ACL gives.
enum { GD_FOLDER_DIRECTORY_MODE = 0750, GD_FOLDER_FILE_MODE = 0640 };

// Lets `uid` and `admin_group` ((gid_t)-1: none) read the directory `folder`, a descriptor that may be O_PATH, and what
// will be created in it, with the modes above; and nobody else. What lies in it already is gone through where the
// folder had no such ACL, or another user's or group's. Returns 0, or a negative errno: -EOPNOTSUPP where the file
// system has no ACLs, -ENOSYS without libacl. May block for as long as the file system does.
__attribute__((warn_unused_result)) int gd_folder_acl_share(int folder, uid_t uid, gid_t admin_group);
