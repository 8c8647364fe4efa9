#include "decode_noise.h"

#include <math.h>
#include <string.h>

#include "gradientd/protocol.h"

static int check_positive(const char *field, double value, struct gd_error *ret_error) {
    if (value > 0.0 && isfinite(value))
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %g, it must be above 0 and finite", field, value);
}

// Those of a gradient that is not finite are Inf or NaN, and no fault.
static int check_squared_norm(const Gradientd__SquaredNorm *norm, size_t index, struct gd_error *ret_error) {
    if (!(norm->batch_size > 0.0) || !isfinite(norm->batch_size))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "squared_norms.batch_size",
                            "squared_norms[%zu].batch_size is %g, it must be above 0 and finite", index,
                            norm->batch_size);
    if (norm->value < 0.0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "squared_norms.value",
                            "squared_norms[%zu].value is %g, it must not be negative", index, norm->value);
    for (size_t i = 0; i < norm->n_per_group; i++)
        if (norm->per_group[i] < 0.0)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "squared_norms.per_group",
                                "squared_norms[%zu].per_group[%zu] is %g, it must not be negative", index, i,
                                norm->per_group[i]);
    return 0;
}

static size_t count_group_norms(const Gradientd__Snapshot *snapshot) {
    size_t n = 0;
    for (size_t i = 0; i < snapshot->n_squared_norms; i++)
        n += snapshot->squared_norms[i]->n_per_group;
    return n;
}

int gd_decode_noise_check(const Gradientd__Snapshot *snapshot, struct gd_error *ret_error) {
    int result = 0;
    if (snapshot->has_clip_factor)
        result = check_positive("clip_factor", snapshot->clip_factor, ret_error);
    if (result == 0 && snapshot->has_batch_size)
        result = check_positive("batch_size", snapshot->batch_size, ret_error);
    if (result < 0 || snapshot->n_squared_norms == 0)
        return result;
    if (!snapshot->has_batch_size)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "batch_size",
                            "batch_size is missing; with squared_norms, of which there are %zu, it must be there",
                            snapshot->n_squared_norms);
    if (snapshot->n_squared_norms > GRADIENTD_SQUARED_NORMS_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "squared_norms",
                            "squared_norms has %zu entries, the limit is %d", snapshot->n_squared_norms,
                            GRADIENTD_SQUARED_NORMS_MAX);
    if (count_group_norms(snapshot) > GRADIENTD_GROUP_NORMS_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "squared_norms.per_group",
                            "squared_norms has %zu entries of per_group in all, the limit is %d",
                            count_group_norms(snapshot), GRADIENTD_GROUP_NORMS_MAX);
    for (size_t i = 0; result == 0 && i < snapshot->n_squared_norms; i++)
        result = check_squared_norm(snapshot->squared_norms[i], i, ret_error);
    return result;
}

size_t gd_decode_noise_bytes(const Gradientd__Snapshot *snapshot) {
    return snapshot->n_squared_norms * sizeof(struct gd_squared_norm) + count_group_norms(snapshot) * sizeof(double);
}

void gd_decode_noise(const Gradientd__Snapshot *snapshot, struct gd_submission *submission) {
    submission->batch_size = snapshot->has_batch_size ? snapshot->batch_size : 0.0;
    submission->clip_factor = snapshot->has_clip_factor ? snapshot->clip_factor : 1.0;
    submission->n_squared_norms = (uint32_t)snapshot->n_squared_norms;
    double *group_norms = (double *)(submission->squared_norms + snapshot->n_squared_norms);
    for (size_t i = 0; i < snapshot->n_squared_norms; i++) {
        const Gradientd__SquaredNorm *given = snapshot->squared_norms[i];
        submission->squared_norms[i] = (struct gd_squared_norm){
            .batch_size = given->batch_size,
            .value = given->value,
            .per_group = group_norms,
            .n_per_group = given->n_per_group,
        };
        if (given->n_per_group > 0)
            memcpy(group_norms, given->per_group, given->n_per_group * sizeof(*group_norms));
        group_norms += given->n_per_group;
    }
}
