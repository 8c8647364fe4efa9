#include "diagnostics/subspace.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

enum { ELEMS_MAX = 40 };

static struct gd_gram gram;
static struct gd_spectrum spectrum;

static double uniform(void) { // in [-1, 1)
    static uint64_t bits = 88172645463325252u;
    bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
    return (double)(int64_t)bits / 9223372036854775808.0;
}

// The matrix of `size` gradients of `elems` elements.
static void set_gradients(uint32_t size, uint32_t elems, double gradients[][ELEMS_MAX]) {
    gram.size = size;
    for (uint32_t i = 0; i < size; i++)
        for (uint32_t j = 0; j < size; j++) {
            double sum = 0.0;
            for (uint32_t k = 0; k < elems; k++)
                sum += gradients[i][k] * gradients[j][k];
            gram.entry[i * size + j] = sum;
        }
}

static void set_diagonal(uint32_t size, double (*value)(uint32_t i)) {
    gram.size = size;
    for (uint32_t i = 0; i < size * size; i++)
        gram.entry[i] = i % (size + 1) == 0 ? value(i / (size + 1)) : 0.0;
}

static struct gd_values values_of_gram(void) {
    struct gd_values values = {0};
    if (gd_subspace_spectrum(&gram, &spectrum))
        gd_subspace_values(&spectrum, &values);
    return values;
}

static void expect(double rank, double share, const char *what) {
    struct gd_values values = values_of_gram();
    cr_assert(gd_values_has(&values, GD_TAG_EFFECTIVE_RANK) && gd_values_has(&values, GD_TAG_TOP_SHARE), "%s", what);
    double found_rank = values.value[GD_TAG_EFFECTIVE_RANK], found_share = values.value[GD_TAG_TOP_SHARE];
    cr_expect(fabs(found_rank - rank) <= 1e-10 * rank, "%s: rank %.17g, not %g", what, found_rank, rank);
    cr_expect(fabs(found_share - share) <= 2e-9 * share, "%s: share %.17g, not %g", what, found_share, share);
}

static double one(uint32_t i) {
    (void)i;
    return 1.0;
}

static double spread(uint32_t i) { // over 300 orders of magnitude
    return pow(10.0, 150.0 - 20.0 * i);
}

static double rising(uint32_t i) {
    return i + 1;
}

static double only_the_fourth(uint32_t i) {
    return i == 3;
}

Test(subspace, orthogonal_gradients_have_the_windows_rank) {
    for (uint32_t n = 2; n <= GD_WINDOW_MAX; n++) {
        set_diagonal(n, one);
        expect(n, 1.0 / n, "orthogonal");
    }
}

Test(subspace, gradients_along_one_line_have_rank_1) {
    for (uint32_t n = 2; n <= GD_WINDOW_MAX; n++)
        for (int opposite = 0; opposite < 2; opposite++) {
            gram.size = n;
            for (uint32_t i = 0; i < n; i++)
                for (uint32_t j = 0; j < n; j++)
                    gram.entry[i * n + j] = opposite && (i + j) % 2 ? -3.0 : 3.0;
            expect(1.0, 1.0, opposite ? "opposite" : "identical");
        }
}

Test(subspace, a_diagonal_matrix_has_its_entries_as_eigenvalues) {
    set_diagonal(8, rising); // 1..8: trace 36, squares 204
    expect(36.0 * 36.0 / 204.0, 8.0 / 36.0, "1 to 8");
    for (int i = 1; i <= 8; i++) {
        cr_expect_eq(gd_subspace_below(&spectrum, i / 36.0 - 1e-12), (uint32_t)i - 1, "%d", i);
        cr_expect_eq(gd_subspace_below(&spectrum, i / 36.0 + 1e-12), (uint32_t)i, "%d", i);
    }
    set_diagonal(6, only_the_fourth);
    expect(1.0, 1.0, "one gradient that is not 0");
}

Test(subspace, sizes_far_apart_neither_overflow_nor_vanish) {
    set_diagonal(16, spread);
    expect(1.0, 1.0, "spread");
    const double scales[] = {1e-300, 1e-160, 1e-40, 1e40, 1e160, 1e300};
    for (size_t s = 0; s < 6; s++) {
        gram.size = 3;
        const double entries[] = {2, 1, 0, 1, 2, 1, 0, 1, 2}; // eigenvalues 2, 2 +- sqrt 2
        for (int i = 0; i < 9; i++)
            gram.entry[i] = entries[i] * scales[s];
        expect(36.0 / 16.0, (2.0 + sqrt(2.0)) / 6.0, "scaled");
    }
}

Test(subspace, there_is_no_value_without_a_whole_finite_matrix) {
    const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    for (size_t b = 0; b < 3; b++)
        for (uint32_t i = 0; i < 16; i++) {
            set_diagonal(4, one);
            gram.entry[i] = bad[b];
            cr_expect_not(gd_subspace_spectrum(&gram, &spectrum), "entry %u is %g", i, bad[b]);
        }
    set_diagonal(4, one);
    for (uint32_t i = 0; i < 16; i++)
        gram.entry[i] = 0.0;
    cr_expect_not(gd_subspace_spectrum(&gram, &spectrum), "all gradients are 0");
}

// Eigenvalues by an independent way: cyclic Jacobi rotations until nothing is left off the diagonal.
static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double off_diagonal(uint32_t n, double a[][GD_WINDOW_MAX]) {
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < i; j++)
            sum += a[i][j] * a[i][j];
    return sum;
}

static void rotate(uint32_t n, double a[][GD_WINDOW_MAX], uint32_t p, uint32_t q) {
    double theta = 0.5 * atan2(2.0 * a[p][q], a[q][q] - a[p][p]), c = cos(theta), s = sin(theta);
    for (uint32_t k = 0; k < n; k++) {
        double x = a[k][p], y = a[k][q];
        a[k][p] = c * x - s * y, a[k][q] = s * x + c * y;
    }
    for (uint32_t k = 0; k < n; k++) {
        double x = a[p][k], y = a[q][k];
        a[p][k] = c * x - s * y, a[q][k] = s * x + c * y;
    }
}

static void jacobi(double *eigenvalues) {
    uint32_t n = gram.size;
    double a[GD_WINDOW_MAX][GD_WINDOW_MAX], trace = 0.0;
    for (uint32_t i = 0; i < n; i++)
        trace += gram.entry[i * n + i];
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++)
            a[i][j] = gram.entry[i * n + j] / trace;
    for (int sweep = 0; sweep < 100 && off_diagonal(n, a) > 1e-34; sweep++)
        for (uint32_t p = 0; p < n; p++)
            for (uint32_t q = p + 1; q < n; q++)
                rotate(n, a, p, q);
    cr_assert_lt(off_diagonal(n, a), 1e-30);
    for (uint32_t i = 0; i < n; i++)
        eigenvalues[i] = a[i][i];
    qsort(eigenvalues, n, sizeof(*eigenvalues), compare);
}

// Streams of every kind: `elems` below the window makes a matrix of low rank, `decay` makes sizes differ.
static void check_random(uint32_t n, uint32_t elems, double common, double decay) {
    double gradients[GD_WINDOW_MAX][ELEMS_MAX], eigenvalues[GD_WINDOW_MAX], base[ELEMS_MAX], size = 1.0;
    for (uint32_t k = 0; k < elems; k++)
        base[k] = uniform();
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < elems; k++)
            gradients[i][k] = size * (common * base[k] + uniform());
        size *= decay;
    }
    set_gradients(n, elems, gradients);
    jacobi(eigenvalues);
    double squares = 0.0;
    for (uint32_t i = 0; i < n; i++)
        squares += eigenvalues[i] * eigenvalues[i];
    expect(1.0 / squares, eigenvalues[n - 1], "random");
    for (uint32_t i = 0; i < n; i++) {
        cr_expect_leq(gd_subspace_below(&spectrum, eigenvalues[i] - 1e-13), i, "size %u, %u", n, i);
        cr_expect_geq(gd_subspace_below(&spectrum, eigenvalues[i] + 1e-13), i + 1, "size %u, %u", n, i);
    }
}

Test(subspace, random_matrices_agree_with_jacobi_rotations) {
    for (uint32_t n = 2; n <= GD_WINDOW_MAX; n++)
        for (uint32_t elems = 1; elems <= ELEMS_MAX; elems += 13) {
            check_random(n, elems, 0.0, 1.0);
            check_random(n, elems, 3.0, 1.0);
            check_random(n, elems, 100.0, 1.0);
            check_random(n, elems, 0.0, 0.1);
            check_random(n, elems, 1.0, 30.0);
        }
}

Test(subspace, counts_rise_with_the_bound) {
    double gradients[12][ELEMS_MAX];
    for (int i = 0; i < 60; i++)
        gradients[i / 5][i % 5] = uniform();
    set_gradients(12, 5, gradients);
    cr_assert(gd_subspace_spectrum(&gram, &spectrum));
    uint32_t before = 0;
    for (int i = -1000; i < 11000; i++) {
        double x = 1e-4 * i;
        uint32_t below = gd_subspace_below(&spectrum, x);
        cr_expect_geq(below, before, "at %g", x);
        before = below;
    }
    cr_expect_eq(before, 12);
}

// Matrices that no gradients have, as a memory that was tampered with may hold: there is an end, and a number.
Test(subspace, what_is_no_gram_matrix_does_no_harm) {
    for (int round = 0; round < 20000; round++) {
        gram.size = 2 + (uint32_t)round % (GD_WINDOW_MAX - 1);
        for (uint32_t i = 0; i < gram.size * gram.size; i++)
            gram.entry[i] = uniform() * pow(10.0, round % 3 ? 300.0 * uniform() : 0.0);
        struct gd_values values = values_of_gram();
        if (gd_values_has(&values, GD_TAG_TOP_SHARE)) {
            double rank = values.value[GD_TAG_EFFECTIVE_RANK];
            cr_expect(rank >= 1.0 && rank <= gram.size, "round %d: %g", round, rank);
            cr_expect(values.value[GD_TAG_TOP_SHARE] <= 1.0, "round %d", round);
            cr_expect_leq(gd_subspace_below(&spectrum, 0.5), gram.size);
        }
    }
}

Test(subspace, cosines) {
    gram.size = 3;
    const double entries[] = {4, -6, 0, -6, 9, 0, 0, 0, 0};
    for (int i = 0; i < 9; i++)
        gram.entry[i] = entries[i];
    cr_expect_eq(gd_subspace_cosine(&gram, 0, 0), 1.0);
    cr_expect_eq(gd_subspace_cosine(&gram, 0, 1), -1.0);
    cr_expect(isnan(gd_subspace_cosine(&gram, 0, 2)), "a gradient of 0 has no direction");
    cr_expect(isnan(gd_subspace_cosine(&gram, 2, 2)));
    gram.entry[1] = (double)NAN;
    cr_expect(isnan(gd_subspace_cosine(&gram, 0, 1)));
}
