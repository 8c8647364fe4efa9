// The kernel for AVX-512 (F, BW, DQ and VL): a row is one vector.
#include <immintrin.h>

#include "kernels.h"

enum { VEC_LANES = 16 };

typedef __m512 vec;
typedef __mmask16 mask;

#define v_zero() _mm512_setzero_ps()
#define v_set1(x) _mm512_set1_ps(x)
#define v_load(from) _mm512_loadu_ps(from)
#define v_store(to, x) _mm512_storeu_ps(to, x)
#define v_stream(to, x) _mm512_stream_ps(to, x)
#define v_fence() _mm_sfence()
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_sqrt(x) _mm512_sqrt_ps(x)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_abs(x) _mm512_abs_ps(x)
#define v_less_equal(a, b) _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ)
#define v_greater(a, b) _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)
#define v_not_equal(a, b) _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ)
#define v_keep(m, x) _mm512_maskz_mov_ps(m, x)
#define v_choose(m, otherwise, x) _mm512_mask_mov_ps(otherwise, m, x)
#define m_and(a, b) ((mask)((a) & (b)))
#define m_or(a, b) ((mask)((a) | (b)))
#define m_all(m) ((m) == 0xffff)

static inline vec v_load_bf16(const uint16_t *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline vec v_load_f16(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)from));
}

#include "differences.h"
#include "fused_blocks.h"

const struct gd_kernels gd_kernels_avx512 = {
    .name = "avx512",
    .analyse = analyse,
    .differences = differences,
};
