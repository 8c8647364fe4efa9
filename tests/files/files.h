// Random trouble with a run's event file, drawn from a seed: what is played, and what it is played on.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../e2e/failing_files.h"
#include "gradientd/client.h"

enum { FILES_PATH_BYTES = 256 };

struct files {
    uint64_t random; // the state of the random numbers
    char directory[FILES_PATH_BYTES / 2], disk[FILES_PATH_BYTES], socket[FILES_PATH_BYTES], log[FILES_PATH_BYTES];
    char **command;      // the daemon's, ended by NULL
    const char *library; // failing_files.c, NULL: not to be had
    bool has_disk;       // `disk` is a small file system of its own
    pid_t daemon;
    struct failing_files *failing;

    struct gradientd_run *faulty, *beside; // the same steps; the second's file has no trouble
    int faulty_fd, beside_fd;              // this program's own descriptors of the files
    char faulty_path[FILES_PATH_BYTES];
    int64_t step; // the last that was submitted
};

// Starts a daemon, and waits until it takes connections. Returns 0 or -1, having said why, like all that follow.
int files_start_daemon(struct files *files);
int files_kill_daemon(struct files *files);

// Submits `steps` steps to both runs, which must take them, with a short pause after each.
int files_train(struct files *files, uint32_t steps);

// Trains until the daemon is not far behind with the faulty run's file.
int files_catch_up(struct files *files);

// A kind of trouble. `begin` and `end` return 0 or -1; `end` may be NULL.
struct files_fault {
    const char *name;
    int (*begin)(struct files *files);
    int (*end)(struct files *files);
    bool (*is_possible)(const struct files *files); // NULL: always
    const char *needs;                              // what it takes where it is not
};

enum { FILES_FAULTS = 13 };

extern const struct files_fault files_faults[FILES_FAULTS];
