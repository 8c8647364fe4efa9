// Whole recordings of short runs, in fuzz_recording.c's form.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Of an OpenRun of open_runs.h. Returns the bytes.
size_t recording_seed_write(int open_run, bool is_inline, uint8_t *ret_seed, size_t capacity);
