// Start vectors element by element.
#include "start_vector.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#include "kernels/kernels.h"

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

Test(start_vector, a_root_is_that_of_what_was_counted) {
    const float least = sqrtf(GD_SECOND_MOMENT_FLOOR), most = sqrtf(FLT_MAX);
    const struct {
        float v, initial, root;
    } cases[] = {
        {4.0f, 0.0f, 2.0f},     {4.25f, 0.25f, 2.0f},    {0.0f, 0.0f, 0.0f},
        {0.1f, 0.1f, 0.0f}, // adagrad's accumulator where nothing was added
        {0.1f, 0.2f, 0.0f},     {-0.0f, 0.0f, 0.0f},     {-1.0f, 0.0f, 0.0f},
        {NAN, 0.0f, 0.0f},      {-INFINITY, 0.0f, 0.0f}, {INFINITY, 0.0f, most},
        {INFINITY, 1.0f, most}, {FLT_MAX, 0.0f, most},   {1e-40f, 0.0f, least}, // subnormal
        {1e-38f, 0.0f, least},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        float root = -1.0f;
        gd_start_roots(&cases[i].v, cases[i].initial, 1, &root);
        cr_expect_eq(root, cases[i].root, "case %zu: the root of %g is %g, not %g", i, (double)cases[i].v, (double)root,
                     (double)cases[i].root);
    }
}

Test(start_vector, a_maximum_is_not_below_what_it_is_the_maximum_of) {
    const float most = sqrtf(FLT_MAX);
    const struct {
        float v_max, root, scale, maximum;
    } cases[] = {
        {9.0f, 2.0f, 1.0f, 3.0f}, {9.0f, 2.0f, 2.0f, 4.0f}, {0.0f, 2.0f, 1.0f, 2.0f},  {NAN, 2.0f, 1.0f, 2.0f},
        {0.0f, 0.0f, 1.0f, 0.0f}, {NAN, 0.0f, 1.0f, 0.0f},  {-1.0f, 0.0f, 3.0f, 0.0f}, {INFINITY, 1.0f, 1.0f, most},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        float maximum = -1.0f;
        gd_start_maxima(&cases[i].v_max, &cases[i].root, cases[i].scale, 1, &maximum);
        cr_expect_eq(maximum, cases[i].maximum, "case %zu: %g, not %g", i, (double)maximum, (double)cases[i].maximum);
    }
}
