#include "diagnostics/subspace.h"

#include <assert.h>
#include <math.h>

// Below it a square adds nothing to a sum of 1, nor does its root, 1e-140, to an eigenvalue; and above it nothing here
// overflows: entries are at most 1 in size, so that all quotients stay below 1e290.
static const double NEGLIGIBLE = 1e-280;

static double trace_of(const struct gd_gram *gram) {
    double trace = 0.0;
    for (uint32_t i = 0; i < gram->size; i++)
        trace += gram->entry[i * gram->size + i];
    return trace;
}

// Fills `scaled` with K / tr K. Returns the sum of its squares, which is not finite where an entry is not.
static double scale(const struct gd_gram *gram, double trace, double *scaled) {
    double squares = 0.0;
    for (uint32_t i = 0; i < gram->size * gram->size; i++) {
        scaled[i] = gram->entry[i] / trace;
        squares += scaled[i] * scaled[i];
    }
    return squares;
}

// One Householder reflection (Golub and Van Loan, "Matrix computations", 8.3.1): column k of the symmetric `a` becomes
// 0 below its first entry off the diagonal, by a <- a - v w' - w v' on the rows and columns after k. Returns the square
// of that entry.
static double reflect(double *a, uint32_t n, uint32_t k) {
    double v[GD_WINDOW_MAX], w[GD_WINDOW_MAX], tail = 0.0, projection = 0.0;
    uint32_t first = k + 1;

    assert(first < n && n <= GD_WINDOW_MAX);
    for (uint32_t i = first; i < n; i++) {
        v[i] = a[i * n + k];
        tail += i > first ? v[i] * v[i] : 0.0;
    }
    double squares = v[first] * v[first] + tail;
    if (tail < NEGLIGIBLE)
        return v[first] * v[first];
    double norm = sqrt(squares);
    double size = v[first] < 0.0 ? -v[first] : v[first];
    v[first] += v[first] < 0.0 ? -norm : norm;  // away from 0: nothing cancels
    double beta = 1.0 / (norm * (norm + size)); // 2 / v'v
    for (uint32_t i = first; i < n; i++) {
        double sum = 0.0;
        for (uint32_t j = first; j < n; j++)
            sum += a[i * n + j] * v[j];
        w[i] = beta * sum;
        projection += w[i] * v[i];
    }
    double half = 0.5 * beta * projection;
    for (uint32_t i = first; i < n; i++)
        w[i] -= half * v[i];
    for (uint32_t i = first; i < n; i++)
        for (uint32_t j = first; j < n; j++)
            a[i * n + j] -= v[i] * w[j] + w[i] * v[j];
    return squares;
}

bool gd_subspace_spectrum(const struct gd_gram *gram, struct gd_spectrum *ret_spectrum) {
    double a[GD_WINDOW_MAX * GD_WINDOW_MAX], trace = trace_of(gram);
    uint32_t n = gram->size;

    assert(n >= 2 && n <= GD_WINDOW_MAX);
    if (!(trace > 0.0) || !isfinite(trace))
        return false;
    ret_spectrum->size = n;
    ret_spectrum->norm_square = scale(gram, trace, a);
    if (!isfinite(ret_spectrum->norm_square))
        return false;
    for (uint32_t k = 0; k < n; k++) {
        ret_spectrum->diagonal[k] = a[k * n + k];
        ret_spectrum->off_square[k] = k + 1 < n ? reflect(a, n, k) : 0.0;
    }
    return true;
}

// Whether x is above every eigenvalue: whether x - T has a Cholesky factor.
static bool is_above_all(const struct gd_spectrum *spectrum, double x) {
    double pivot = x - spectrum->diagonal[0];
    for (uint32_t i = 1; i < spectrum->size && pivot > 0.0; i++)
        pivot = x - spectrum->diagonal[i] - spectrum->off_square[i - 1] / pivot;
    return pivot > 0.0;
}

// Bisection between bounds that always hold: the sum of the eigenvalues' squares is at least the largest one's, and at
// most the largest times their sum, 1. (By as much as rounding has made one negative it may be more.)
double gd_subspace_largest(const struct gd_spectrum *spectrum) {
    const double precision = 1e-9; // f32, which it becomes, has 6e-8
    double low = spectrum->norm_square, high = sqrt(spectrum->norm_square);

    low = low < high ? low : high;
    while (high - low > precision * high) {
        double middle = 0.5 * (low + high);
        if (is_above_all(spectrum, middle))
            high = middle;
        else
            low = middle;
    }
    return high < 1.0 ? high : 1.0;
}

// Sylvester: as many as the negative pivots of T - x.
uint32_t gd_subspace_below(const struct gd_spectrum *spectrum, double x) {
    const double least = 1e-300; // a pivot of 0 counts as just below it
    double pivot = 1.0;
    uint32_t below = 0;

    for (uint32_t i = 0; i < spectrum->size; i++) {
        pivot = spectrum->diagonal[i] - x - (i > 0 ? spectrum->off_square[i - 1] / pivot : 0.0);
        if (pivot < least && pivot > -least)
            pivot = -least;
        below += pivot < 0.0;
    }
    return below;
}

void gd_subspace_values(const struct gd_spectrum *spectrum, struct gd_values *values) {
    double rank = 1.0 / spectrum->norm_square, size = spectrum->size;
    rank = rank < size ? rank : size; // the dot products are rounded sums
    gd_values_set(values, GD_TAG_EFFECTIVE_RANK, rank > 1.0 ? rank : 1.0);
    gd_values_set(values, GD_TAG_TOP_SHARE, gd_subspace_largest(spectrum));
}

double gd_subspace_cosine(const struct gd_gram *gram, uint32_t i, uint32_t j) {
    double a = gram->entry[i * gram->size + i], b = gram->entry[j * gram->size + j];
    double dot = gram->entry[i * gram->size + j];
    if (!isfinite(dot) || !isfinite(a) || !isfinite(b) || !(a > 0.0) || !(b > 0.0))
        return (double)NAN;
    return dot / (sqrt(a) * sqrt(b));
}
