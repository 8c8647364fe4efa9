// What the tests of event files in trouble share: a run whose records fill the outbox soon, the daemon's log, and the
// file that the run would have had undisturbed.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradientd/client.h"

enum { FAULTY_STEP_BYTES = 20000 }; // a step's records have more than this: 70 of them overflow the outbox

// Submits steps first..last, each with many scalars; every one must be taken.
void faulty_submit(struct gradientd_run *run, int64_t first, int64_t last);

// The same without waiting, whatever becomes of them: steps are skipped where the daemon does not keep up.
void faulty_offer(struct gradientd_run *run, int64_t first, int64_t last);

// Waits until step `step` is in the file. Fails the test where that does not come, as all that follow do.
void faulty_wait_written(const char *path, int64_t step);

// How many lines of the daemon's log say both.
size_t faulty_log_lines(const char *what, const char *also);

// Waits until one does.
void faulty_wait_logged(const char *what, const char *also);

// Fails the test unless the log has one line that tells of the trouble of run `name`, and one of its end.
void faulty_expect_one_trouble(const char *name, const char *what);

// The process's own descriptor of a file.
int faulty_descriptor(const char *path);

// Trains undisturbed with steps 1..last and returns the file's path.
const char *faulty_reference(int64_t last);

// Fails the test unless the file is the one of such a training.
void faulty_expect_undisturbed(const char *path, int64_t last);
