#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

enum { VECTORS = 5, ELEMS_MAX = 3000 };

static uint64_t random_state = 1;

static uint32_t random_bits(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 32);
}

// Any bits: NaN, infinities, subnormals and all sizes are among them.
static void fill_any(void *vector, size_t bytes) {
    for (size_t i = 0; i < bytes; i += sizeof(uint32_t)) {
        uint32_t bits = random_bits();
        memcpy((char *)vector + i, &bits, sizeof(bits));
    }
}

// Each instruction set's sums have the portable ones' bits, whatever the types, the length and what is there.
Test(differences, every_variant_gives_the_same_bits) {
    static float vectors[VECTORS][ELEMS_MAX];
    for (size_t v = 0; v < VECTORS; v++)
        fill_any(vectors[v], sizeof(vectors[v]));
    for (size_t elems = 0; elems < ELEMS_MAX; elems += elems < 70 ? 1 : 487) {
        for (unsigned choice = 0; choice < 3 * 3 * 6; choice++) {
            unsigned have = choice / 9; // 0: now alone, then each of what may be missing
            struct gd_difference_chunk chunk = {
                .elems = elems,
                .type = GD_F32 + choice % 3,
                .other_type = GD_F32 + choice / 3 % 3,
                .now = vectors[0],
                .before = have >= 2 ? vectors[1] : NULL,
                .start = have % 2 ? vectors[2] : NULL,
                .other_now = have >= 4 ? vectors[3] : NULL,
                .other_before = have >= 4 ? vectors[4] : NULL,
            };
            struct gd_difference_sums expected, sums;
            const struct gd_kernels *kernels;
            bool supported;
            gd_kernels_scalar.differences(&chunk, &expected);
            for (size_t i = 0; (kernels = gd_kernels_variant(i, &supported)); i++) {
                if (!supported)
                    continue;
                kernels->differences(&chunk, &sums);
                cr_assert_arr_eq(&sums, &expected, sizeof(sums), "%s, %zu elements, choice %u", kernels->name, elems,
                                 choice);
            }
        }
    }
}

Test(differences, sums_by_hand) {
    const float now[] = {1.0f, 2.0f, 3.0f}, before[] = {1.5f, 2.0f, 1.0f}, start[] = {0.0f, 0.0f, 7.0f};
    const float other_now[] = {4.0f, 1.0f, -1.0f}, other_before[] = {2.0f, 1.0f, 2.0f};
    const struct gd_difference_chunk chunk = {3, GD_F32, GD_F32, now, before, start, other_now, other_before};
    struct gd_difference_sums sums;
    gd_kernels_scalar.differences(&chunk, &sums);
    cr_expect_eq(sums.squared_norm, 1.0 + 4.0 + 9.0);
    cr_expect_eq(sums.squared_step, 0.25 + 4.0);
    cr_expect_eq(sums.squared_from_start, 1.0 + 4.0 + 16.0);
    cr_expect_eq(sums.other_squared_step, 4.0 + 9.0);
    cr_expect_eq(sums.product, -0.5 * 2.0 + 2.0 * -3.0);
}

// Through dot products nothing would be left of these: |x|^2 is 2e12 and a float has 7 digits.
Test(differences, small_steps_of_large_vectors_keep_their_digits) {
    float now[2] = {1e6f, 1e6f}, before[2] = {1e6f, nextafterf(1e6f, 0.0f)};
    const struct gd_difference_chunk chunk = {.elems = 2, .type = GD_F32, .now = now, .before = before};
    struct gd_difference_sums sums;
    double moved = (double)now[1] - (double)before[1];
    gd_kernels_scalar.differences(&chunk, &sums);
    cr_expect_eq(sums.squared_step, moved * moved);
    cr_expect_gt(sums.squared_step, 0.0);
}

Test(differences, what_is_not_finite_counts_as_no_difference) {
    const float now[] = {INFINITY, 1.0f, NAN, 5.0f}, before[] = {INFINITY, -INFINITY, 1.0f, 2.0f};
    const struct gd_difference_chunk chunk = {.elems = 4, .type = GD_F32, .now = now, .before = before};
    struct gd_difference_sums sums;
    gd_kernels_scalar.differences(&chunk, &sums);
    cr_expect_eq(sums.squared_norm, 26.0);
    cr_expect_eq(sums.squared_step, 9.0);
}

// Squares that would be infinite or 0 as floats.
Test(differences, squares_keep_their_size) {
    const float now[] = {1e30f, 1e-30f}, before[] = {-1e30f, 0.0f};
    const struct gd_difference_chunk chunk = {.elems = 1, .type = GD_F32, .now = now, .before = before};
    const struct gd_difference_chunk small = {.elems = 1, .type = GD_F32, .now = now + 1, .before = before + 1};
    struct gd_difference_sums sums;
    gd_kernels_scalar.differences(&chunk, &sums);
    cr_expect_float_eq(sums.squared_step / 4e60, 1.0, 1e-6);
    gd_kernels_scalar.differences(&small, &sums);
    cr_expect_float_eq(sums.squared_step / 1e-60, 1.0, 1e-6);
}
