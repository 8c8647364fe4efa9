// The kernel for AVX2 with F16C: a row is two vectors.
#include <immintrin.h>

#include "kernels.h"

enum { VEC_LANES = 8 };

typedef __m256 vec;
typedef __m256 mask; // all bits of a lane

#define v_zero() _mm256_setzero_ps()
#define v_set1(x) _mm256_set1_ps(x)
#define v_load(from) _mm256_loadu_ps(from)
#define v_store(to, x) _mm256_storeu_ps(to, x)
#define v_stream(to, x) _mm256_stream_ps(to, x)
#define v_fence() _mm_sfence()
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_sqrt(x) _mm256_sqrt_ps(x)
#define v_min(a, b) _mm256_min_ps(a, b)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_abs(x) _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x)
#define v_less_equal(a, b) _mm256_cmp_ps(a, b, _CMP_LE_OQ)
#define v_greater(a, b) _mm256_cmp_ps(a, b, _CMP_GT_OQ)
#define v_not_equal(a, b) _mm256_cmp_ps(a, b, _CMP_NEQ_UQ)
#define v_keep(m, x) _mm256_and_ps(m, x)
#define v_choose(m, otherwise, x) _mm256_blendv_ps(otherwise, x, m)
#define m_and(a, b) _mm256_and_ps(a, b)
#define m_or(a, b) _mm256_or_ps(a, b)
#define m_all(m) (_mm256_movemask_ps(m) == 0xff)

static inline vec v_load_bf16(const uint16_t *from) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline vec v_load_f16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)from));
}

#include "differences.h"
#include "fused_blocks.h"

const struct gd_kernels gd_kernels_avx2 = {
    .name = "avx2",
    .analyse = analyse,
    .differences = differences,
};
