// Right checksums, which no mutation would hit.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Puts them into all records that `bytes` bytes hold, up to one that is cut off.
void mend_checksums(uint8_t *records, size_t bytes);
