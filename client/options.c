#include <errno.h>
#include <math.h>
#include <string.h>

#include "internal.h"
#include "text.h"

enum { SHOWN_BYTES = 64 }; // of a text in an error's

static const uint64_t OUTPUT_ELEMENTS_MAX = UINT64_C(1) << 40; // as the daemon has it

int client_check_name(const char *list, size_t index, const char *member, const char *name,
                      struct gradientd_error *ret_error) {
    char shown[SHOWN_BYTES];
    if (!name)
        return client_fail(ret_error, EINVAL, "%s[%zu]%s is missing; it must be 1 to %d bytes of UTF-8", list, index,
                           member, GRADIENTD_NAME_BYTES_MAX);
    if (gd_text_is_name(name))
        return 0;
    gd_text_copy_printable(shown, sizeof(shown), name);
    return client_fail(ret_error, EINVAL,
                       "%s[%zu]%s has %zu bytes, \"%s\"; it must be 1 to %d bytes of UTF-8 without control characters",
                       list, index, member, strlen(name), shown, GRADIENTD_NAME_BYTES_MAX);
}

static int check_groups(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    if (options->n_groups < 1 || options->n_groups > GRADIENTD_GROUPS_MAX)
        return client_fail(ret_error, EINVAL, "n_groups is %zu, the limits are 1 and %d", options->n_groups,
                           GRADIENTD_GROUPS_MAX);
    if (!options->groups)
        return client_fail(ret_error, EINVAL, "groups is missing, n_groups is %zu", options->n_groups);
    for (size_t i = 0; i < options->n_groups; i++) {
        const struct gradientd_group *group = &options->groups[i];
        int result = client_check_name("groups", i, ".name", group->name, ret_error);
        if (result < 0)
            return result;
        if (group->parameter_group >= options->n_parameter_groups)
            return client_fail(ret_error, EINVAL, "groups[%zu].parameter_group is %u, there are %zu", i,
                               group->parameter_group, options->n_parameter_groups);
    }
    return 0;
}

static int check_paths(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    if (options->logdir && !*options->logdir)
        return client_fail(ret_error, EINVAL, "logdir is empty; NULL means the daemon's state directory");
    if (options->logdir && strstr(options->logdir, "://"))
        return client_fail(ret_error, EINVAL, "logdir is %s: event files go to a local directory", options->logdir);
    if (!options->run || gd_text_is_run(options->run))
        return 0;
    char shown[SHOWN_BYTES];
    gd_text_copy_printable(shown, sizeof(shown), options->run);
    return client_fail(ret_error, EINVAL,
                       "run is \"%s\"; it must be a relative path of components [A-Za-z0-9._=,+-] of at most %d bytes, "
                       "none of them . or .., %d bytes in all",
                       shown, GRADIENTD_NAME_BYTES_MAX, GRADIENTD_RUN_BYTES_MAX);
}

static int check_times(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    if (!(options->connect_timeout >= 0.0) || !(options->max_stall >= 0.0) || !(options->close_timeout >= 0.0))
        return client_fail(ret_error, EINVAL,
                           "connect_timeout, max_stall and close_timeout are %g, %g and %g; they "
                           "must not be negative",
                           options->connect_timeout, options->max_stall, options->close_timeout);
    if (!isfinite(options->wall_time))
        return client_fail(ret_error, EINVAL, "wall_time is %f, it must be finite", options->wall_time);
    if (options->stride < 1)
        return client_fail(ret_error, EINVAL, "stride is 0, it must be at least 1");
    return 0;
}

static int check_patterns(const char *name, const char *const *patterns, size_t n_patterns,
                          struct gradientd_error *ret_error) {
    if (n_patterns > GRADIENTD_PATTERNS_MAX)
        return client_fail(ret_error, EINVAL, "n_%s is %zu, the limit is %d", name, n_patterns, GRADIENTD_PATTERNS_MAX);
    if (n_patterns > 0 && !patterns)
        return client_fail(ret_error, EINVAL, "%s is missing, n_%s is %zu", name, name, n_patterns);
    for (size_t i = 0; i < n_patterns; i++) {
        int result = client_check_name(name, i, "", patterns[i], ret_error);
        if (result < 0)
            return result;
    }
    return 0;
}

static int check_choices(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    if ((unsigned)options->element_type > GRADIENTD_F64)
        return client_fail(ret_error, EINVAL, "element_type is %d, the limits are 0 and %d", (int)options->element_type,
                           GRADIENTD_F64);
    if ((unsigned)options->transport > GRADIENTD_INLINE_DEFLATED)
        return client_fail(ret_error, EINVAL, "transport is %d, the limits are 0 and %d", (int)options->transport,
                           GRADIENTD_INLINE_DEFLATED);
    if ((unsigned)options->per_group > GRADIENTD_PER_GROUP_OFF)
        return client_fail(ret_error, EINVAL, "per_group is %d, the limits are 0 and %d", (int)options->per_group,
                           GRADIENTD_PER_GROUP_OFF);
    if ((unsigned)options->optimizer.bias_correction > GRADIENTD_NO_BIAS_CORRECTION)
        return client_fail(ret_error, EINVAL, "optimizer.bias_correction is %d, the limits are 0 and %d",
                           (int)options->optimizer.bias_correction, GRADIENTD_NO_BIAS_CORRECTION);
    if (options->copy_threads < 1 || options->copy_threads > GRADIENTD_COPY_THREADS_MAX)
        return client_fail(ret_error, EINVAL, "copy_threads is %u, the limits are 1 and %d", options->copy_threads,
                           GRADIENTD_COPY_THREADS_MAX);
    if (options->n_shadow_rules > GRADIENTD_ADAFOM)
        return client_fail(ret_error, EINVAL, "n_shadow_rules is %zu, there are %d rules", options->n_shadow_rules,
                           GRADIENTD_ADAFOM);
    if (options->n_shadow_rules > 0 && !options->shadow_rules)
        return client_fail(ret_error, EINVAL, "shadow_rules is missing, n_shadow_rules is %zu",
                           options->n_shadow_rules);
    return 0;
}

// Streams beside the gradient.
static int check_sides(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    const struct {
        const char *name;
        const struct gradientd_stream_options *stream;
    } sides[] = {
        {"probe_gradients", &options->probe_gradients},
        {"parameters", &options->parameters},
        {"outputs", &options->outputs},
    };
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        if (sides[i].stream->stride == 0)
            continue;
        if (options->transport != GRADIENTD_SHARED_MEMORY)
            return client_fail(ret_error, EINVAL, "%s.stride is %u, with transport inline it must be 0", sides[i].name,
                               sides[i].stream->stride);
        if ((unsigned)sides[i].stream->element_type > GRADIENTD_F64)
            return client_fail(ret_error, EINVAL, "%s.element_type is %d, the limits are 0 and %d", sides[i].name,
                               (int)sides[i].stream->element_type, GRADIENTD_F64);
    }
    if ((options->start_parameters && options->parameters.stride == 0) ||
        (options->start_outputs && options->outputs.stride == 0))
        return client_fail(ret_error, EINVAL, "start_%s is given; the option %s.stride is 0, it must be at least 1",
                           options->start_parameters && options->parameters.stride == 0 ? "parameters" : "outputs",
                           options->start_parameters && options->parameters.stride == 0 ? "parameters" : "outputs");
    for (size_t i = 0; options->start_parameters && i < options->n_groups; i++)
        if (!options->start_parameters[i])
            return client_fail(ret_error, EINVAL, "start_parameters[%zu] is missing; there must be one for each of %zu",
                               i, options->n_groups);
    if (options->outputs.stride > 0 && (options->output_examples < 1 || options->outputs_per_example < 1 ||
                                        options->output_examples > OUTPUT_ELEMENTS_MAX / options->outputs_per_example))
        return client_fail(ret_error, EINVAL,
                           "output_examples is %llu and outputs_per_example %llu; they must be at least 1, and their "
                           "product at most %llu",
                           (unsigned long long)options->output_examples,
                           (unsigned long long)options->outputs_per_example, (unsigned long long)OUTPUT_ELEMENTS_MAX);
    return 0;
}

// A payload's size bounds what goes inline.
static int check_inline(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    bool starts = options->start_second_moment || options->start_second_moment_max; // whose elements are floats
    size_t element_bytes = starts ? sizeof(float) : client_element_bytes(options->element_type);
    uint64_t elements_max = GRADIENTD_PAYLOAD_BYTES_MAX / element_bytes;
    uint64_t elements = 0;
    for (size_t i = 0; i < options->n_groups && options->transport != GRADIENTD_SHARED_MEMORY; i++) {
        if (options->groups[i].numel > elements_max - elements)
            return client_fail(ret_error, EINVAL,
                               "groups[%zu].numel is %llu, with transport inline all together are at most %llu", i,
                               (unsigned long long)options->groups[i].numel, (unsigned long long)elements_max);
        elements += options->groups[i].numel;
    }
    return 0;
}

static int check_options(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    if (options->options_bytes != sizeof(*options))
        return client_fail(ret_error, EINVAL,
                           "options_bytes is %zu, this library's is %zu: start from "
                           "gradientd_options_default()",
                           options->options_bytes, sizeof(*options));
    if (options->n_parameter_groups < 1 || options->n_parameter_groups > GRADIENTD_PARAMETER_GROUPS_MAX)
        return client_fail(ret_error, EINVAL, "n_parameter_groups is %zu, the limits are 1 and %d",
                           options->n_parameter_groups, GRADIENTD_PARAMETER_GROUPS_MAX);
    if (!options->parameter_groups)
        return client_fail(ret_error, EINVAL, "parameter_groups is missing, n_parameter_groups is %zu",
                           options->n_parameter_groups);
    int result = check_paths(options, ret_error);
    if (result == 0)
        result = check_times(options, ret_error);
    if (result == 0)
        result = check_choices(options, ret_error);
    if (result == 0)
        result = check_patterns("include", options->include, options->n_include, ret_error);
    if (result == 0)
        result = check_patterns("exclude", options->exclude, options->n_exclude, ret_error);
    if (result == 0)
        result = client_check_hparams(options, ret_error);
    if (result == 0)
        result = check_groups(options, ret_error);
    if (result == 0)
        result = check_sides(options, ret_error);
    return result < 0 ? result : check_inline(options, ret_error);
}

int gradientd_check(const struct gradientd_options *options, struct gradientd_error *ret_error) {
    struct gradientd_error ignored;
    struct gradientd_error *error = ret_error ? ret_error : &ignored;
    *error = (struct gradientd_error){0};
    return check_options(options, error);
}
