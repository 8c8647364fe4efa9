// CRC-32C (Castagnoli: reflected polynomial 0x82f63b78, initial value and final xor all ones), the checksum of
// TensorBoard's records. Thread-safe.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Checksum of `bytes` bytes at `data`, continuing from `crc`, the checksum of what came before (0: nothing). Uses the
// machine's CRC instruction where there is one.
uint32_t gd_crc32c(uint32_t crc, const void *data, size_t bytes);

// The same from tables alone: what gd_crc32c() falls back to, apart so that tests can hold the two together.
uint32_t gd_crc32c_portable(uint32_t crc, const void *data, size_t bytes);

// A checksum as records store it: rotated right by 15 bits, plus 0xa282ead8.
uint32_t gd_crc32c_mask(uint32_t crc);

// The checksum of `bytes` bytes at `data` as records store it.
uint32_t gd_crc32c_masked(const void *data, size_t bytes);
