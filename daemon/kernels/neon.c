// The kernel for AArch64, whose every processor has Advanced SIMD: a row is four vectors.
#include <arm_neon.h>

#include "kernels.h"

enum { VEC_LANES = 4 };

typedef float32x4_t vec;
typedef uint32x4_t mask; // all bits of a lane

#define v_zero() vdupq_n_f32(0.0f)
#define v_set1(x) vdupq_n_f32(x)
#define v_load(from) vld1q_f32(from)
#define v_store(to, x) vst1q_f32(to, x)
#define v_stream(to, x) vst1q_f32(to, x)
#define v_fence() ((void)0) // plain stores need none
#define v_add(a, b) vaddq_f32(a, b)
#define v_sub(a, b) vsubq_f32(a, b)
#define v_mul(a, b) vmulq_f32(a, b)
#define v_div(a, b) vdivq_f32(a, b)
#define v_sqrt(x) vsqrtq_f32(x)
#define v_min(a, b) vbslq_f32(vcltq_f32(a, b), a, b) // vminq_f32 gives NaN for NaN
#define v_max(a, b) vbslq_f32(vcgtq_f32(a, b), a, b)
#define v_abs(x) vabsq_f32(x)
#define v_less_equal(a, b) vcleq_f32(a, b)
#define v_greater(a, b) vcgtq_f32(a, b)
#define v_not_equal(a, b) vmvnq_u32(vceqq_f32(a, b))
#define v_keep(m, x) vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(x)))
#define v_choose(m, otherwise, x) vbslq_f32(m, x, otherwise)
#define m_and(a, b) vandq_u32(a, b)
#define m_or(a, b) vorrq_u32(a, b)
#define m_all(m) (vminvq_u32(m) != 0)

static inline vec v_load_bf16(const uint16_t *from) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from), 16));
}

static inline vec v_load_f16(const uint16_t *from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}

#include "differences.h"
#include "fused_blocks.h"

const struct gd_kernels gd_kernels_neon = {
    .name = "neon",
    .analyse = analyse,
    .differences = differences,
};
