// The trainer that is attacked: several groups, adam, values of its own, shared memory, and a max_stall that is long
// enough to show every step that a disturbed daemon loses.
#pragma once

#include <stdint.h>
#include <sys/types.h>

enum { VICTIM_PATH_BYTES = 512 };

// What the victim tells, in memory that all processes share.
struct victim_report {
    _Atomic int64_t steps;        // trained so far
    _Atomic int64_t last;         // the step to end with; 0: not known yet
    _Atomic uint64_t longest_us;  // that a submit took
    char path[VICTIM_PATH_BYTES]; // of its event file
};

struct victim {
    pid_t pid;
    int pidfd;
    struct victim_report *report;
};

// Starts it in a process of its own and waits until it trains.
void victim_start(struct victim *victim, const char *socket, const char *logdir, const char *run);

// Lets it train some steps more and close; fails the test where it lost a step, had a warning or does not end. The
// report stays, victim_free(). Returns how many steps it trained.
int64_t victim_finish(struct victim *victim);

// The same run from the first to the last of `steps` steps at once.
void victim_train_alone(struct victim *victim, const char *socket, const char *logdir, const char *run, int64_t steps);

void victim_free(struct victim *victim);
