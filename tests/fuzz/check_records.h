// What lies in an event file, or is on its way to one.
#pragma once

#include <stdint.h>

// Asserts that `bytes` bytes are whole records with right checksums.
void check_records(const uint8_t *records, uint64_t bytes);
