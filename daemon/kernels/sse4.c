// The kernel for SSE4.2, which x86-64-v2 has: a row is four vectors.
#include <immintrin.h>

#include "kernels.h"

enum { VEC_LANES = 4 };

typedef __m128 vec;
typedef __m128 mask; // all bits of a lane

#define v_zero() _mm_setzero_ps()
#define v_set1(x) _mm_set1_ps(x)
#define v_load(from) _mm_loadu_ps(from)
#define v_store(to, x) _mm_storeu_ps(to, x)
#define v_stream(to, x) _mm_stream_ps(to, x)
#define v_fence() _mm_sfence()
#define v_add(a, b) _mm_add_ps(a, b)
#define v_sub(a, b) _mm_sub_ps(a, b)
#define v_mul(a, b) _mm_mul_ps(a, b)
#define v_div(a, b) _mm_div_ps(a, b)
#define v_sqrt(x) _mm_sqrt_ps(x)
#define v_min(a, b) _mm_min_ps(a, b)
#define v_max(a, b) _mm_max_ps(a, b)
#define v_abs(x) _mm_andnot_ps(_mm_set1_ps(-0.0f), x)
#define v_less_equal(a, b) _mm_cmple_ps(a, b)
#define v_greater(a, b) _mm_cmpgt_ps(a, b)
#define v_not_equal(a, b) _mm_cmpneq_ps(a, b)
#define v_keep(m, x) _mm_and_ps(m, x)
#define v_choose(m, otherwise, x) _mm_blendv_ps(otherwise, x, m)
#define m_and(a, b) _mm_and_ps(a, b)
#define m_or(a, b) _mm_or_ps(a, b)
#define m_all(m) (_mm_movemask_ps(m) == 0xf)

static inline vec v_load_bf16(const uint16_t *from) {
    __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64((const void *)from));
    return _mm_castsi128_ps(_mm_slli_epi32(wide, 16));
}

// The bits of a half's size, moved to a float's places, are that float times 2^-112 (127 - 15: the biases' difference),
// subnormal or not; the product is exact. Infinities and NaN, whose sizes are from 0x7c00 on, get a float's largest
// exponent.
static inline vec v_load_f16(const uint16_t *from) {
    __m128i bits = _mm_cvtepu16_epi32(_mm_loadl_epi64((const void *)from));
    __m128i size = _mm_and_si128(bits, _mm_set1_epi32(0x7fff));
    __m128i sign = _mm_slli_epi32(_mm_xor_si128(bits, size), 16);
    __m128i special = _mm_and_si128(_mm_cmpgt_epi32(size, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
    vec value = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(size, 13)), _mm_set1_ps(0x1p112f));
    return _mm_or_ps(value, _mm_castsi128_ps(_mm_or_si128(sign, special)));
}

#include "differences.h"
#include "fused_blocks.h"

const struct gd_kernels gd_kernels_sse4 = {
    .name = "sse4",
    .analyse = analyse,
    .differences = differences,
};
