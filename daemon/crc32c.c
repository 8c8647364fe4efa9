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

// The instruction takes three cycles and can begin every cycle, so long data is taken as three strands of so many
// bytes: 10 KiB in 0.3 us instead of 0.9.
enum { STRAND_BYTES = 512 };

// strand_shift[k][b]: what byte k of a remainder contributes, if it is b, once STRAND_BYTES zeros have followed.
static uint32_t strand_shift[4][256];

__attribute__((target("sse4.2"))) static void strand_shift_build(void) {
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int k = 0; k < 4; k++) {
            uint64_t remainder = byte << (8 * k);
            for (int i = 0; i < STRAND_BYTES; i += 8)
                remainder = _mm_crc32_u64(remainder, 0);
            strand_shift[k][byte] = (uint32_t)remainder;
        }
}

static uint32_t shift_strand(uint32_t remainder) {
    return strand_shift[0][remainder & 0xff] ^ strand_shift[1][remainder >> 8 & 0xff] ^
           strand_shift[2][remainder >> 16 & 0xff] ^ strand_shift[3][remainder >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *data, size_t bytes) {
    const uint8_t *next = data;
    uint64_t state = (uint32_t)~crc;

    for (; bytes >= 3 * STRAND_BYTES; bytes -= 3 * STRAND_BYTES, next += 3 * STRAND_BYTES) {
        uint64_t second = 0, third = 0;
        for (int i = 0; i < STRAND_BYTES; i += 8) {
            state = _mm_crc32_u64(state, gd_read_u64le(next + i));
            second = _mm_crc32_u64(second, gd_read_u64le(next + STRAND_BYTES + i));
            third = _mm_crc32_u64(third, gd_read_u64le(next + 2 * STRAND_BYTES + i));
        }
        state = shift_strand(shift_strand((uint32_t)state) ^ (uint32_t)second) ^ (uint32_t)third;
    }
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
    implementation = gd_crc32c_portable;
    if (!__builtin_cpu_supports("sse4.2"))
        return;
    strand_shift_build();
    implementation = crc32c_sse42;
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

uint32_t gd_crc32c_mask(uint32_t crc) {
    return ((crc >> 15) | (crc << 17)) + MASK_DELTA;
}

uint32_t gd_crc32c_masked(const void *data, size_t bytes) {
    return gd_crc32c_mask(gd_crc32c(0, data, bytes));
}
