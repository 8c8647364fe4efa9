// What most end-to-end tests begin with: a directory of their own, and a daemon that listens in it.
#pragma once

#include "daemon_process.h"
#include "scratch.h"

extern char directory[SCRATCH_PATH_BYTES];
extern char event_path[SCRATCH_PATH_BYTES + 16]; // of raw clients' runs
extern struct daemon_process daemon_process;

void fixture_set_up(void);

// Stops the daemon, unless a test has ended it for good, and removes the directory.
void fixture_tear_down(void);
