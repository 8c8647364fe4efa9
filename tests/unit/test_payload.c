// Payloads in pieces of every size: what fills its destination, and what is refused, with the same words however the
// pieces are cut.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "payload.h"

enum {
    ELEMENTS_BYTES = 600,
    STREAM_BYTES_MAX = 4096,
    CANARY = 0xa5,
};

static uint8_t elements[ELEMENTS_BYTES]; // what the payload is to become

// Half noise, half zeros: literals and long matches.
static void set_up(void) {
    uint32_t state = 1;
    for (size_t i = 0; i < ELEMENTS_BYTES / 2; i++) {
        state = state * 1664525 + 1013904223;
        elements[i] = (uint8_t)(state >> 24);
    }
}

TestSuite(payload, .init = set_up);

// ---- zlib that fails

static int init_result = Z_OK, inflate_result = Z_OK; // unless Z_OK, what zlib says instead

// Linked in place of zlib's for the code under test.
#define VISIBLE __attribute__((visibility("default"))) // the linker thinks that libraries call them too
int __real_inflateInit_(z_streamp stream, const char *version, int stream_size);
VISIBLE int __wrap_inflateInit_(z_streamp stream, const char *version, int stream_size);
int __real_inflate(z_streamp stream, int flush);
VISIBLE int __wrap_inflate(z_streamp stream, int flush);

int __wrap_inflateInit_(z_streamp stream, const char *version, int stream_size) {
    return init_result == Z_OK ? __real_inflateInit_(stream, version, stream_size) : init_result;
}

int __wrap_inflate(z_streamp stream, int flush) {
    return inflate_result == Z_OK ? __real_inflate(stream, flush) : inflate_result;
}

// ---- payloads

struct bytes {
    uint8_t data[STREAM_BYTES_MAX];
    size_t used;
};

// The elements, or the first `bytes` of them and then zeros, as deflateInit2() makes them.
static struct bytes deflated(size_t bytes, int level, int window_bits, const char *dictionary) {
    struct bytes result = {{0}, 0};
    uint8_t source[2 * ELEMENTS_BYTES] = {0};
    z_stream deflater = {0};

    memcpy(source, elements, ELEMENTS_BYTES);
    cr_assert_eq(deflateInit2(&deflater, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    if (dictionary)
        cr_assert_eq(deflateSetDictionary(&deflater, (const uint8_t *)dictionary, (unsigned)strlen(dictionary)), Z_OK);
    deflater.next_in = source;
    deflater.avail_in = (unsigned)bytes;
    deflater.next_out = result.data;
    deflater.avail_out = sizeof(result.data);
    cr_assert_eq(deflate(&deflater, Z_FINISH), Z_STREAM_END);
    result.used = sizeof(result.data) - deflater.avail_out;
    deflateEnd(&deflater);
    return result;
}

static struct bytes zlib_stream(size_t bytes) {
    return deflated(bytes, 6, 15, NULL);
}

static struct gd_error error;

// Takes a payload of ELEMENTS_BYTES elements in pieces of `piece` bytes. Each gets a block of its own, and so does the
// destination, which a canary follows. Returns what the first call says that fails, else 0.
static int take(const struct bytes *bytes, bool is_deflated, size_t piece) {
    struct gd_payload payload;
    uint8_t *destination = malloc(ELEMENTS_BYTES + 1);
    cr_assert(destination);
    memset(destination, CANARY, ELEMENTS_BYTES + 1);

    error = (struct gd_error){.field = ""};
    int result = gd_payload_init(&payload, destination, ELEMENTS_BYTES, bytes->used, is_deflated, &error);
    for (size_t at = 0; result == 0 && at < bytes->used; at += piece) {
        size_t n = bytes->used - at < piece ? bytes->used - at : piece;
        uint8_t *data = malloc(n);
        cr_assert(data);
        memcpy(data, bytes->data + at, n);
        cr_assert_eq(payload.left_bytes, bytes->used - at);
        result = gd_payload_take(&payload, data, n, &error);
        free(data);
    }
    if (result == 0)
        cr_expect(payload.left_bytes == 0 && memcmp(destination, elements, ELEMENTS_BYTES) == 0,
                  "pieces of %zu bytes: the elements are not what they were", piece);
    cr_expect_eq(destination[ELEMENTS_BYTES], CANARY, "pieces of %zu bytes: written past the end", piece);
    gd_payload_deinit(&payload);
    cr_expect_null(payload.destination);
    free(destination);
    return result;
}

static void expect_taken(struct bytes bytes, bool is_deflated) {
    for (size_t piece = 1; piece <= bytes.used; piece++)
        cr_expect_eq(take(&bytes, is_deflated, piece), 0, "%zu bytes in pieces of %zu: %s", bytes.used, piece,
                     error.text);
}

static void expect_refused(const char *name, struct bytes bytes, bool is_deflated, const char *field,
                           const char *says) {
    for (size_t piece = 1; piece <= bytes.used + 1; piece++) {
        cr_expect_eq(take(&bytes, is_deflated, piece), -EBADMSG, "%s: taken in pieces of %zu", name, piece);
        cr_expect_eq(error.code, GD_ERROR_INVALID);
        cr_expect_str_eq(error.field, field, "%s, pieces of %zu: field %s: %s", name, piece, error.field, error.text);
        cr_expect(strstr(error.text, says), "%s, pieces of %zu: \"%s\"", name, piece, error.text);
    }
}

Test(payload, raw_bytes_fill_their_destination) {
    struct bytes bytes = {.used = ELEMENTS_BYTES};
    memcpy(bytes.data, elements, ELEMENTS_BYTES);
    expect_taken(bytes, false);
}

Test(payload, a_raw_payload_is_as_long_as_its_elements) {
    static const struct {
        size_t bytes;
        const char *says;
    } sizes[] = {
        {0, "inline_bytes is 0, the elements take 600 bytes"},
        {1, "inline_bytes is 1,"},
        {ELEMENTS_BYTES - 1, "inline_bytes is 599, the elements take 600 bytes"},
        {ELEMENTS_BYTES + 1, "inline_bytes is 601,"},
        {2 * ELEMENTS_BYTES, "inline_bytes is 1200,"},
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        expect_refused("raw", (struct bytes){.used = sizes[i].bytes}, false, "streams.inline_bytes", sizes[i].says);
}

Test(payload, zlib_streams_of_every_kind_inflate) {
    for (int level = 0; level <= 9; level++)
        for (int window_bits = 9; window_bits <= 15; window_bits += 3)
            expect_taken(deflated(ELEMENTS_BYTES, level, window_bits, NULL), true);
}

static struct bytes and_more(struct bytes bytes, size_t more) {
    bytes.used += more;
    return bytes;
}

static struct bytes cut(struct bytes bytes, size_t less) {
    bytes.used -= less;
    return bytes;
}

// With one bit of byte `at` the other way round.
static struct bytes flipped(struct bytes bytes, size_t at) {
    bytes.data[at] ^= 1;
    return bytes;
}

Test(payload, what_does_not_inflate_to_the_elements_is_refused) {
    enum { RAW_DEFLATE = -15, GZIP = 15 + 16 };
    static const char size[] = "streams.inline_bytes", form[] = "streams.deflated";
    static const char more[] = "inflates to more than the 600 bytes", less[] = "inflates to less than the 600 bytes";
    static const char end[] = "does not end with the payload", header[] = "incorrect header check";
    struct bytes stream = zlib_stream(ELEMENTS_BYTES);
    struct bytes twice = stream;
    memcpy(twice.data + stream.used, stream.data, stream.used);
    twice.used *= 2;
    const struct {
        const char *name;
        struct bytes bytes;
        const char *field, *says;
    } cases[] = {
        {"nothing", {.used = 0}, size, "inline_bytes is 0"},
        {"zeros", {.used = 100}, form, "unknown compression method"},
        {"raw deflate", deflated(ELEMENTS_BYTES, 6, RAW_DEFLATE, NULL), form, header},
        {"gzip", deflated(ELEMENTS_BYTES, 6, GZIP, NULL), form, header},
        {"a dictionary", deflated(ELEMENTS_BYTES, 6, 15, "gradient"), form, "it needs a dictionary"},
        {"one byte more", zlib_stream(ELEMENTS_BYTES + 1), size, more},
        {"a long match more", zlib_stream(2 * ELEMENTS_BYTES), size, more},
        {"stored, one byte more", deflated(ELEMENTS_BYTES + 1, 0, 15, NULL), size, more},
        {"one byte less", zlib_stream(ELEMENTS_BYTES - 1), size, less},
        {"no elements", zlib_stream(0), size, less},
        {"no checksum", cut(stream, 4), form, end},
        {"cut by a byte", cut(stream, 1), form, end},
        {"cut in the middle", cut(stream, stream.used / 2), form, end},
        {"a header alone", cut(stream, stream.used - 2), form, end},
        {"a byte after the end", and_more(stream, 1), form, end},
        {"many bytes after the end", and_more(stream, 1000), form, end},
        {"two streams", twice, form, end},
        {"a wrong checksum", flipped(stream, stream.used - 1), form, "incorrect data check"},
        {"a wrong method", flipped(stream, 0), form, header},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_refused(cases[i].name, cases[i].bytes, true, cases[i].field, cases[i].says);
}

// A few bits do not matter (how far back zeros are copied from); the others are found by the checksum at the latest.
Test(payload, damage_gets_the_same_answer_in_all_pieces) {
    struct bytes stream = zlib_stream(ELEMENTS_BYTES);
    size_t refused = 0;
    for (size_t at = 0; at < stream.used; at++) {
        struct bytes damaged = flipped(stream, at);
        int result = take(&damaged, true, damaged.used);
        struct gd_error whole = error;
        refused += result == -EBADMSG;
        for (size_t piece = 1; piece < damaged.used; piece += 7) {
            cr_expect_eq(take(&damaged, true, piece), result, "byte %zu in pieces of %zu", at, piece);
            cr_expect(result == 0 || strcmp(error.text, whole.text) == 0, "byte %zu in pieces of %zu: %s, not %s", at,
                      piece, error.text, whole.text);
        }
    }
    cr_expect_geq(refused, stream.used - 2);
}

Test(payload, a_lack_of_memory_is_no_fault_of_the_payload) {
    struct bytes stream = zlib_stream(ELEMENTS_BYTES);
    init_result = Z_MEM_ERROR;
    cr_expect_eq(take(&stream, true, stream.used), -ENOMEM);
    init_result = Z_OK;
    inflate_result = Z_MEM_ERROR;
    cr_expect_eq(take(&stream, true, stream.used), -ENOMEM);
}

Test(payload, none_is_released_too) {
    struct gd_payload none = {0};
    gd_payload_deinit(&none);
    gd_payload_deinit(&none);
}
