// What another process holds, as /proc tells without asking it.
#pragma once

#include <stdint.h>
#include <sys/types.h>

struct process_usage {
    size_t fds;
    size_t threads;
    uint64_t resident_kib;
    uint64_t anonymous_kib; // of these: its own, without shared memory and files
    uint64_t switches;      // times one of its threads was put on or off a processor: a blocked thread has none
};

// Fails the test when there is no such process.
struct process_usage process_usage_of(pid_t pid);

// Waits until nothing in the process has run for `quiet_seconds`, and fails the test where that does not come:
// something runs again and again. A system call that waits, as a periodic one must, shows as a switch.
struct process_usage process_usage_at_rest(pid_t pid, double quiet_seconds);

// How often the process's first thread has waited for something so far.
uint64_t process_usage_waits(pid_t pid);
