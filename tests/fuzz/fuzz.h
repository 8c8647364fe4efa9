// What libFuzzer calls, or replay.c for every file of a corpus. Whatever the bytes are, it returns 0: what must not
// happen is asserted or left to the sanitizers.
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
