#include "step_sizes.h"

#include <assert.h>
#include <float.h>
#include <math.h>

static float element_at(const struct gd_chunk *chunk, size_t index) {
    if (chunk->type == GD_F32)
        return ((const float *)chunk->gradient)[index];
    uint16_t half = ((const uint16_t *)chunk->gradient)[index];
    return chunk->type == GD_BF16 ? gd_widen_bf16(half) : gd_widen_f16(half);
}

static bool is_active(float g) {
    return g != 0.0f && fabsf(g) <= FLT_MAX;
}

void gd_step_sizes(const struct gd_chunk *chunk, size_t first, size_t elems, float *restrict ret_sizes) {
    const struct gd_second_moment_step *step = chunk->step;
    const float *roots = (chunk->maximum_next ? chunk->maximum_next : chunk->root_next) + first;

    assert(step->measured && first + elems <= chunk->elems);
    for (size_t i = 0; i < elems; i++) {
        float x = roots[i] * step->scale;
        float p = step->inside > 0.0f ? sqrtf(x * x + step->inside) : x;
        ret_sizes[i] = step->numerator / (p + step->outside);
    }
    for (size_t i = 0; i < elems; i++)
        if (!is_active(element_at(chunk, first + i)))
            ret_sizes[i] = 0.0f;
}
