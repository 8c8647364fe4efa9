#include "start_vector.h"

#include <float.h>
#include <math.h>

#include "kernels/kernels.h"

// With the bounds of the kernels' contract. Comparisons that NaN fails.
static float root_of(float v) {
    if (!(v > 0.0f))
        return 0.0f;
    if (v < GD_SECOND_MOMENT_FLOOR)
        v = GD_SECOND_MOMENT_FLOOR;
    return sqrtf(v > FLT_MAX ? FLT_MAX : v);
}

void gd_start_roots(const float *v, float initial, size_t elems, float *ret_root) {
    for (size_t i = 0; i < elems; i++)
        ret_root[i] = root_of(v[i] - initial);
}

void gd_start_maxima(const float *v_max, const float *root, float scale, size_t elems, float *ret_maximum) {
    for (size_t i = 0; i < elems; i++) {
        float maximum = root_of(v_max[i]);
        float least = root[i] * scale;
        ret_maximum[i] = maximum > least ? maximum : least;
    }
}
