#include "crc32c.h"

#include <pthread.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#include "bytes.h"

#define POLYNOMIAL UINT32_C(0x82f63b78)
#define MASK_DELTA UINT32_C(0xa282ead8)

// slices[k][b]: what byte b contributes to the remainder when k more bytes follow it.
static uint32_t slices[8][256];
static pthread_once_t slices_once = PTHREAD_ONCE_INIT;

static void slices_build(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t remainder = byte;
        for (int bit = 0; bit < 8; bit++)
            remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? POLYNOMIAL : 0);
        slices[0][byte] = remainder;
    }
    for (int k = 1; k < 8; k++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = slices[k - 1][byte];
            slices[k][byte] = (before >> 8) ^ slices[0][before & 0xff];
        }
    }
}

uint32_t gd_crc32c_portable(uint32_t crc, const void *data, size_t bytes) {
    const uint8_t *next = data;

    pthread_once(&slices_once, slices_build);
    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, next += 8) {
        uint64_t word = gd_read_u64le(next) ^ crc;
        crc = 0;
        for (int i = 0; i < 8; i++)
            crc ^= slices[7 - i][word >> (8 * i) & 0xff];
    }
    for (; bytes > 0; bytes--, next++)
        crc = (crc >> 8) ^ slices[0][(crc ^ *next) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data, size_t bytes) {
    const uint8_t *next = data;
    uint64_t state = (uint32_t)~crc;

    for (; bytes >= 8; bytes -= 8, next += 8)
        state = _mm_crc32_u64(state, gd_read_u64le(next));
    crc = (uint32_t)state;
    for (; bytes > 0; bytes--, next++)
        crc = _mm_crc32_u8(crc, *next);
    return ~crc;
}

static uint32_t (*implementation)(uint32_t crc, const void *data, size_t bytes);
static pthread_once_t implementation_once = PTHREAD_ONCE_INIT;

static void implementation_choose(void) {
    implementation = __builtin_cpu_supports("sse4.2") ? crc32c_sse42 : gd_crc32c_portable;
}

uint32_t gd_crc32c(uint32_t crc, const void *data, size_t bytes) {
    pthread_once(&implementation_once, implementation_choose);
    return implementation(crc, data, bytes);
}

#elif defined(__ARM_FEATURE_CRC32)

uint32_t gd_crc32c(uint32_t crc, const void *data, size_t bytes) {
    const uint8_t *next = data;

    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, next += 8)
        crc = __crc32cd(crc, gd_read_u64le(next));
    for (; bytes > 0; bytes--, next++)
        crc = __crc32cb(crc, *next);
    return ~crc;
}

#else

uint32_t gd_crc32c(uint32_t crc, const void *data, size_t bytes) {
    return gd_crc32c_portable(crc, data, bytes);
}

#endif

uint32_t gd_crc32c_masked(const void *data, size_t bytes) {
    uint32_t crc = gd_crc32c(0, data, bytes);
    return ((crc >> 15) | (crc << 17)) + MASK_DELTA;
}
