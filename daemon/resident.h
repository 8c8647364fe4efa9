// The memory of this process.
#pragma once

#include <stdint.h>

// What of it is in the machine's memory, with what it shares with trainers and has mapped; 0: not known.
uint64_t gd_resident_bytes(void);
