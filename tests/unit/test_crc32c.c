#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "crc32c.h"

typedef uint32_t crc32c_function(uint32_t crc, const void *data, size_t bytes);

static const struct {
    const char *name;
    crc32c_function *crc32c;
} variants[] = {
    {"gd_crc32c", gd_crc32c},
    {"gd_crc32c_portable", gd_crc32c_portable},
};

enum { N_VARIANTS = sizeof(variants) / sizeof(variants[0]) };

// The definition, bit by bit: what both variants must agree with.
static uint32_t crc32c_bitwise(uint32_t crc, const uint8_t *data, size_t bytes) {
    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? UINT32_C(0x82f63b78) : 0);
    }
    return ~crc;
}

static void fill(uint8_t *data, size_t bytes) {
    uint32_t state = 1;
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525 + 1013904223;
        data[i] = (uint8_t)(state >> 24);
    }
}

Test(crc32c, known_vectors) {
    uint8_t zeros[32], ones[32], rising[32];
    memset(zeros, 0, sizeof(zeros));
    memset(ones, 0xff, sizeof(ones));
    for (uint8_t i = 0; i < sizeof(rising); i++)
        rising[i] = i;

    // "123456789" is the check value of the CRC catalogue, the others are RFC 3720's (appendix B.4).
    const struct {
        const void *data;
        size_t bytes;
        uint32_t crc;
    } vectors[] = {
        {"", 0, 0},
        {"123456789", 9, 0xe3069283},
        {zeros, sizeof(zeros), 0x8a9136aa},
        {ones, sizeof(ones), 0x62a8ab43},
        {rising, sizeof(rising), 0x46dd794e},
    };
    for (size_t v = 0; v < N_VARIANTS; v++) {
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
            uint32_t crc = variants[v].crc32c(0, vectors[i].data, vectors[i].bytes);
            cr_assert_eq(crc, vectors[i].crc, "%s, vector %zu: %08x", variants[v].name, i, crc);
        }
    }
}

Test(crc32c, every_length_at_every_alignment) {
    static uint8_t data[16 + 300];
    fill(data, sizeof(data));

    for (size_t offset = 0; offset < 16; offset++) {
        for (size_t bytes = 0; bytes <= 300; bytes++) {
            uint32_t expected = crc32c_bitwise(0, data + offset, bytes);
            for (size_t v = 0; v < N_VARIANTS; v++)
                cr_assert_eq(variants[v].crc32c(0, data + offset, bytes), expected, "%s, offset %zu, %zu bytes",
                             variants[v].name, offset, bytes);
        }
    }
}

// Around the multiples of what is taken in strands.
Test(crc32c, long_data) {
    static uint8_t data[7 + 3 * 1536 + 20];
    fill(data, sizeof(data));

    for (size_t offset = 0; offset < 8; offset += 7) {
        for (size_t strands = 1; strands <= 3; strands++) {
            for (size_t bytes = strands * 1536 - 20; bytes <= strands * 1536 + 20; bytes++) {
                uint32_t expected = crc32c_bitwise(0x12345678, data + offset, bytes);
                for (size_t v = 0; v < N_VARIANTS; v++)
                    cr_assert_eq(variants[v].crc32c(0x12345678, data + offset, bytes), expected,
                                 "%s, offset %zu, %zu bytes", variants[v].name, offset, bytes);
            }
        }
    }
}

Test(crc32c, chains_at_every_split) {
    uint8_t data[64];
    fill(data, sizeof(data));
    uint32_t whole = crc32c_bitwise(0, data, sizeof(data));

    for (size_t split = 0; split <= sizeof(data); split++) {
        for (size_t v = 0; v < N_VARIANTS; v++) {
            uint32_t crc = variants[v].crc32c(0, data, split);
            crc = variants[v].crc32c(crc, data + split, sizeof(data) - split);
            cr_assert_eq(crc, whole, "%s, split at %zu", variants[v].name, split);
        }
    }
}

Test(crc32c, mask_rotates_and_adds) {
    cr_assert_eq(gd_crc32c_masked("", 0), 0xa282ead8);
    cr_assert_eq(gd_crc32c_masked("\0\0\0\0\0\0\0\0", 8), 0x07980329); // the empty record's length
    cr_assert_eq(gd_crc32c_masked("123456789", 9), 0xc78ab0e5);
}
