// The event files of trainers that bring none: <state directory>/<uid>/<run>/events.out.tfevents...
#pragma once

#include <sys/types.h>

#include "error.h"

// Whose file it is. The strings are borrowed.
struct gd_event_place {
    const char *state_directory; // NULL: there is none
    uid_t uid;                   // of the client: its folder's name
    pid_t pid;                   // of the client: part of the file's name
    gid_t admin_group;           // may read it too; (gid_t)-1: none
    const char *run;             // a name that gd_text_is_run() has accepted
    const char *name; // of the run's file, one that gd_event_path_is_name() has accepted; "": it has none yet
};

// Where the state directory is by default: the first of $STATE_DIRECTORY (systemd's), else /var/lib/gradientd for root,
// else $XDG_STATE_HOME/gradientd or $HOME/.local/state/gradientd. Returns 0 and *ret_path, the caller's, NULL where
// none of them is set; or -ENOMEM.
__attribute__((warn_unused_result)) int gd_state_directory_default(char **ret_path);

// Creates the file and the directories that are missing, or opens the one that is named, which is created again where
// it is gone; no symlink below the state directory is followed. They are the daemon's user's alone, but for another
// user's folder, which that user and the admin group may read: see folder_acl.h; where that fails a line is logged, and
// nobody else may. `now`: seconds since the epoch. Returns the descriptor, open for reading and writing, and *ret_path,
// the caller's; or a negative errno with *ret_error set. May block for as long as the file system does.
__attribute__((warn_unused_result)) int gd_state_directory_open_file(const struct gd_event_place *place, double now,
                                                                     char **ret_path, struct gd_error *ret_error);
