#include <errno.h>
#include <math.h>

#include "internal.h"

// Notes that every tag has a value at `step`; a failure leaves all of them as they were.
static int use_tags(struct gradientd_run *run, int64_t step, const struct gradientd_scalar *scalars, size_t n_scalars) {
    for (size_t i = 0; i < n_scalars; i++) {
        struct gd_error error;
        int result = gd_user_tags_use(run->tags, scalars[i].tag, step, &run->tag_indices[i], &error);
        if (result == 0)
            continue;
        for (size_t used = 0; used < i; used++)
            gd_user_tags_undo(run->tags, run->tag_indices[used]);
        return client_fail(&run->error, result == -ENOMEM ? ENOMEM : EINVAL, "scalars[%zu]: %s", i,
                           result == -ENOMEM ? "out of memory" : error.text);
    }
    return 0;
}

// The daemon would end the run for these; here they cost the trainer one call.
int client_check_scalars(struct gradientd_run *run, int64_t step, const struct gradientd_scalar *scalars,
                         size_t n_scalars) {
    if (n_scalars > GRADIENTD_USER_TAGS_MAX)
        return client_fail(&run->error, EINVAL, "n_scalars is %zu, the limit is %d", n_scalars,
                           GRADIENTD_USER_TAGS_MAX);
    if (n_scalars > 0 && !scalars)
        return client_fail(&run->error, EINVAL, "scalars is missing, n_scalars is %zu", n_scalars);
    for (size_t i = 0; i < n_scalars; i++) {
        int result = client_check_name("scalars", i, ".tag", scalars[i].tag, &run->error);
        if (result < 0)
            return result;
    }
    return use_tags(run, step, scalars, n_scalars);
}

static int check_rates(struct gradientd_run *run, const struct gradientd_step *step) {
    if (!step->learning_rates)
        return client_fail(&run->error, EINVAL, "learning_rates is missing");
    for (uint32_t i = 0; i < run->n_parameter_groups; i++) {
        if (!isfinite(step->learning_rates[i]))
            return client_fail(&run->error, EINVAL, "learning_rates[%u] is %f, it must be finite", i,
                               step->learning_rates[i]);
        if (step->beta2 && !(step->beta2[i] >= 0.0 && step->beta2[i] < 1.0))
            return client_fail(&run->error, EINVAL, "beta2[%u] is %g, it must be at least 0 and below 1", i,
                               step->beta2[i]);
        if (step->eps && !(step->eps[i] >= 0.0 && isfinite(step->eps[i])))
            return client_fail(&run->error, EINVAL, "eps[%u] is %g, it must be finite and not negative", i,
                               step->eps[i]);
    }
    return 0;
}

// Streams beside the gradient: those that the options have, whole.
static int check_sides(struct gradientd_run *run, const struct gradientd_step *step) {
    static const char *const names[CLIENT_SIDES] = {"probe_gradients", "parameters", "outputs"};
    struct client_side_elements sides[CLIENT_SIDES];
    client_sides_of_step(step, sides);
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        if (sides[side].is_there && run->sides[side].elements == 0)
            return client_fail(&run->error, EINVAL, "%s is given; the option %s.stride is 0, it must be at least 1",
                               names[side], names[side]);
        for (uint32_t i = 0; sides[side].slices && i < run->n_groups; i++)
            if (!sides[side].slices[i])
                return client_fail(&run->error, EINVAL, "%s[%u] is missing; there must be one for each of %u groups",
                                   names[side], i, run->n_groups);
    }
    if (step->has_model_version && (step->model_version < 0 || step->model_version > step->step))
        return client_fail(&run->error, EINVAL,
                           "model_version is %lld, it must not be negative, nor above the step, %lld",
                           (long long)step->model_version, (long long)step->step);
    return 0;
}

static int check_squared_norm(struct gradientd_run *run, const struct gradientd_squared_norm *norm, size_t index) {
    if (!(norm->batch_size > 0.0) || !isfinite(norm->batch_size))
        return client_fail(&run->error, EINVAL, "squared_norms[%zu].batch_size is %g, it must be above 0 and finite",
                           index, norm->batch_size);
    if (norm->value < 0.0)
        return client_fail(&run->error, EINVAL, "squared_norms[%zu].value is %g, it must not be negative", index,
                           norm->value);
    for (uint32_t i = 0; norm->per_group && i < run->n_groups; i++)
        if (norm->per_group[i] < 0.0)
            return client_fail(&run->error, EINVAL, "squared_norms[%zu].per_group[%u] is %g, it must not be negative",
                               index, i, norm->per_group[i]);
    return 0;
}

static int check_squared_norms(struct gradientd_run *run, const struct gradientd_step *step) {
    uint64_t group_norms = 0;
    if (step->n_squared_norms > GRADIENTD_SQUARED_NORMS_MAX)
        return client_fail(&run->error, EINVAL, "n_squared_norms is %zu, the limit is %d", step->n_squared_norms,
                           GRADIENTD_SQUARED_NORMS_MAX);
    if (!step->squared_norms)
        return client_fail(&run->error, EINVAL, "squared_norms is missing, n_squared_norms is %zu",
                           step->n_squared_norms);
    if (step->batch_size == 0.0)
        return client_fail(&run->error, EINVAL, "batch_size is 0; with squared_norms it must be above 0");
    for (size_t i = 0; i < step->n_squared_norms; i++) {
        int result = check_squared_norm(run, &step->squared_norms[i], i);
        if (result < 0)
            return result;
        group_norms += step->squared_norms[i].per_group ? run->n_groups : 0;
    }
    if (group_norms > GRADIENTD_GROUP_NORMS_MAX)
        return client_fail(&run->error, EINVAL, "squared_norms has %llu values per_group in all, the limit is %d",
                           (unsigned long long)group_norms, GRADIENTD_GROUP_NORMS_MAX);
    return 0;
}

static int check_noise(struct gradientd_run *run, const struct gradientd_step *step) {
    if (!(step->batch_size >= 0.0) || !isfinite(step->batch_size))
        return client_fail(&run->error, EINVAL, "batch_size is %g, it must be 0 or above, and finite",
                           step->batch_size);
    if (!(step->clip_factor >= 0.0) || !isfinite(step->clip_factor))
        return client_fail(&run->error, EINVAL, "clip_factor is %g, it must be 0 or above, and finite",
                           step->clip_factor);
    return step->n_squared_norms > 0 ? check_squared_norms(run, step) : 0;
}

int client_check_step(struct gradientd_run *run, const struct gradientd_step *step) {
    if (run->step < 0 && step->step != run->first_step)
        return client_fail(&run->error, EINVAL, "step is %lld, the first one must be the option first_step, %lld",
                           (long long)step->step, (long long)run->first_step);
    if (step->step <= run->step)
        return client_fail(&run->error, EINVAL, "step is %lld, it must be above the last one, %lld",
                           (long long)step->step, (long long)run->step);
    if (!step->not_applied && step->optimizer_step != 0 && step->optimizer_step <= run->optimizer_step)
        return client_fail(&run->error, EINVAL, "optimizer_step is %llu, it must be above the last applied one, %llu",
                           (unsigned long long)step->optimizer_step, (unsigned long long)run->optimizer_step);
    if (!isfinite(step->wall_time))
        return client_fail(&run->error, EINVAL, "wall_time is %f, it must be finite", step->wall_time);
    int result = check_rates(run, step);
    if (result == 0)
        result = check_sides(run, step);
    if (result == 0)
        result = check_noise(run, step);
    return result < 0 ? result : client_check_scalars(run, step->step, step->scalars, step->n_scalars);
}
