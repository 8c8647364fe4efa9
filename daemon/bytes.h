// Little-endian integers in byte strings.
#pragma once

#include <stdint.h>

static inline uint32_t gd_read_u32le(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline uint64_t gd_read_u64le(const uint8_t *bytes) {
    return (uint64_t)gd_read_u32le(bytes) | (uint64_t)gd_read_u32le(bytes + 4) << 32;
}

static inline void gd_write_u32le(uint8_t *bytes, uint32_t value) {
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

static inline void gd_write_u64le(uint8_t *bytes, uint64_t value) {
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}
