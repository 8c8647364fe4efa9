#include "decode_thresholds.h"

#include <math.h>

// A number of at least `least`, or INFINITY, which switches its rule off.
static int read_number(const char *field, double value, double least, double *ret_number, struct gd_error *ret_error) {
    if (!(value >= least))
        return gd_error_set(ret_error, GD_ERROR_INVALID, field,
                            "%s is %g, it must be at least %g, or infinite for no such rule", field, value, least);
    *ret_number = value;
    return 0;
}

static int read_cosine(double value, double *ret_cosine, struct gd_error *ret_error) {
    if (!(value >= -1.0 && value <= 1.0) && value != -(double)INFINITY)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "thresholds.cosine_mean",
                            "thresholds.cosine_mean is %g, it must be at least -1 and at most 1, or -infinite for no "
                            "such rule",
                            value);
    *ret_cosine = value;
    return 0;
}

static int read_steps(uint64_t value, uint32_t *ret_steps, struct gd_error *ret_error) {
    if (value == 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "thresholds.zero_group_steps",
                            "thresholds.zero_group_steps is 0, it must be at least 1; from %u on there is no such rule",
                            UINT32_MAX);
    *ret_steps = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    return 0;
}

int gd_decode_thresholds(const Gradientd__RuleThresholds *message, struct gd_alert_thresholds *ret_thresholds,
                         struct gd_error *ret_error) {
    struct gd_alert_thresholds thresholds = gd_alert_thresholds_default;
    int result = 0;
    if (message && message->has_norm_spike_sd)
        result =
            read_number("thresholds.norm_spike_sd", message->norm_spike_sd, 0.0, &thresholds.norm_spike_sd, ret_error);
    if (result == 0 && message && message->has_rms)
        result = read_number("thresholds.rms", message->rms, 0.0, &thresholds.rms, ret_error);
    if (result == 0 && message && message->has_cosine_mean)
        result = read_cosine(message->cosine_mean, &thresholds.cosine_mean, ret_error);
    if (result == 0 && message && message->has_oscillation)
        result = read_number("thresholds.oscillation", message->oscillation, 0.0, &thresholds.oscillation, ret_error);
    if (result == 0 && message && message->has_zero_group_steps)
        result = read_steps(message->zero_group_steps, &thresholds.zero_group_steps, ret_error);
    if (result == 0 && message && message->has_silence_intervals)
        result = read_number("thresholds.silence_intervals", message->silence_intervals, 1.0,
                             &thresholds.silence_intervals, ret_error);
    if (result == 0)
        *ret_thresholds = thresholds;
    return result;
}
