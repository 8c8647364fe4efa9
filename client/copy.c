// Copies into shared memory. What is copied is read next by another processor core, long after it has left this one's
// caches, so large steps go past the caches: two thirds of the memory traffic, because no line is read before it is
// overwritten.
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "internal.h"

enum {
    // Runs whose slots together take more than this are copied past the caches: below, the daemon finds a step in the
    // cache and a plain copy is quicker (measured, 8 slots, 32 MiB of last cache, us a step plain and streamed: 256 KiB
    // 2.1 and 7.8, 1 MiB 18 and 28, 4 MiB 205 and 114 to 137).
    STREAM_SLOTS_BYTES_MIN = 16 << 20,
    // Shorter ones are not worth a streamed copy's ends, where lines are written in two parts.
    STREAM_COPY_BYTES_MIN = 2 << 10,
    LINE_BYTES = 64,
};

bool client_copy_streams(uint64_t slots_bytes) {
    return slots_bytes > STREAM_SLOTS_BYTES_MIN;
}

#ifdef __x86_64__

// Whole lines, `to` aligned to them. Every x86-64 processor has this one.
static void stream_lines_sse2(uint8_t *to, const uint8_t *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        for (size_t k = at; k < at + LINE_BYTES; k += sizeof(__m128i))
            _mm_stream_si128((void *)(to + k), _mm_loadu_si128((const void *)(from + k)));
}

// A tenth faster.
__attribute__((target("avx2"))) static void stream_lines_avx2(uint8_t *to, const uint8_t *from, size_t bytes) {
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        for (size_t k = at; k < at + LINE_BYTES; k += sizeof(__m256i))
            _mm256_stream_si256((void *)(to + k), _mm256_loadu_si256((const void *)(from + k)));
}

void client_copy_stream(void *to, const void *from, size_t bytes) {
    size_t head = (LINE_BYTES - (uintptr_t)to % LINE_BYTES) % LINE_BYTES;
    if (bytes < STREAM_COPY_BYTES_MIN) {
        memcpy(to, from, bytes);
        return;
    }
    size_t lines = (bytes - head) / LINE_BYTES * LINE_BYTES;
    uint8_t *line = memcpy(to, from, head);
    line += head;
    const uint8_t *source = (const uint8_t *)from + head;
    if (__builtin_cpu_supports("avx2"))
        stream_lines_avx2(line, source, lines);
    else
        stream_lines_sse2(line, source, lines);
    memcpy(line + lines, source + lines, bytes - head - lines);
}

void client_copy_fence(void) {
    _mm_sfence();
}

#else

void client_copy_stream(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
}

void client_copy_fence(void) {
}

#endif
