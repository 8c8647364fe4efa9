#include "diagnostics/function_space.h"

#include <math.h>

void gd_parameters_values(const struct gd_movement *parameters, struct gd_side_values *values) {
    const struct gd_difference_sums *sums = parameters->sums;
    if (parameters->has_before)
        gd_side_values_set(values, GD_SIDE_TAG_PARAMETERS_STEP, sqrt(sums->squared_step));
    if (parameters->has_start)
        gd_side_values_set(values, GD_SIDE_TAG_PARAMETERS_FROM_START, sqrt(sums->squared_from_start));
    if (parameters->has_before && sums->squared_norm > 0.0)
        gd_side_values_set(values, GD_SIDE_TAG_UPDATE_RATIO, sqrt(sums->squared_step) / sqrt(sums->squared_norm));
}

void gd_function_values(const struct gd_movement *outputs, uint64_t examples, const struct gd_movement *parameters,
                        bool same_step, bool same_start, struct gd_side_values *values) {
    double step = sqrt(outputs->sums->squared_step / (double)examples);
    double from_start = sqrt(outputs->sums->squared_from_start / (double)examples);
    if (outputs->has_before)
        gd_side_values_set(values, GD_SIDE_TAG_FUNCTION_STEP, step);
    if (outputs->has_start)
        gd_side_values_set(values, GD_SIDE_TAG_FUNCTION_FROM_START, from_start);
    if (!parameters)
        return;
    if (outputs->has_before && parameters->has_before && same_step && parameters->sums->squared_step > 0.0)
        gd_side_values_set(values, GD_SIDE_TAG_PER_PARAMETER_STEP, step / sqrt(parameters->sums->squared_step));
    if (outputs->has_start && parameters->has_start && same_start && parameters->sums->squared_from_start > 0.0)
        gd_side_values_set(values, GD_SIDE_TAG_PER_PARAMETER_FROM_START,
                           from_start / sqrt(parameters->sums->squared_from_start));
}
