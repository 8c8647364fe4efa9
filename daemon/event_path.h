// Names of event files, for whoever creates one: the client below its logdir, the daemon below its state directory.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum {
    // "events.out.tfevents." 20, seconds 10, host 63, pid and n 10 each, ".gradientd" 10, three dots and the end
    GD_EVENT_NAME_BYTES = 128,
};

// mkdir -p: creates what is missing of `path`, which comes back unchanged. Returns 0 or a negative errno.
__attribute__((warn_unused_result)) int gd_event_path_make_directories(char *path, mode_t mode);

// Whether `name` may be that of an event file: one component of a path, of the characters that are in such names.
bool gd_event_path_is_name(const char *name);

// Creates events.out.tfevents.<seconds, 10 digits>.<host>.<pid>.<n>.gradientd in the directory of the descriptor
// `directory` (O_PATH will do), empty and open for reading and writing. Its name sorts after those of all event files
// there: its seconds are `now`, or above the latest of theirs. Returns the descriptor and the name, or a negative
// errno.
__attribute__((warn_unused_result)) int gd_event_path_create(int directory, double now, pid_t pid, mode_t mode,
                                                             char ret_name[GD_EVENT_NAME_BYTES]);
