// What every end-to-end test needs: a directory of its own, files read whole, and waiting with a deadline. A call that
// cannot do its work fails the test.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { SCRATCH_PATH_BYTES = 64 };

// A new directory's path.
void scratch_make(char path[SCRATCH_PATH_BYTES]);

// Removes the directory and all below it.
void scratch_remove(const char *path);

struct scratch_bytes {
    uint8_t *data;
    size_t bytes;
};

// A file's bytes; the caller frees `data`.
struct scratch_bytes scratch_read(const char *path);

// Fails the test unless both files hold the same bytes, and at least one.
void scratch_expect_same(const char *path, const char *expected_path);

// CLOCK_MONOTONIC seconds.
double scratch_now(void);

// Asks `holds` until it says true or `seconds` have passed; its last answer.
bool scratch_wait_until(bool (*holds)(const void *context), const void *context, double seconds);

// Waits until `fd` (a pidfd, a socket) is readable or hung up.
bool scratch_wait_readable(int fd, double seconds);

// How many descriptors process `pid` has open; 0 is this one.
size_t scratch_count_fds(pid_t pid);
