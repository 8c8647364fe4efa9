#include "shown.h"

uint32_t gd_shown(const struct gd_open_run *open_run) {
    uint32_t shown = GD_SHOWN_ALWAYS;
    if (gd_adam_has_effective_step(&open_run->adam))
        shown |= GD_SHOWN_EFFECTIVE_STEP;
    if (gd_adam_has_second_moment(&open_run->adam))
        shown |= GD_SHOWN_SECOND_MOMENT;
    if (open_run->n_shadows > 0)
        shown |= GD_SHOWN_SHADOWS;
    if (open_run->series.n_series > 0)
        shown |= GD_SHOWN_GROUPS;
    if (gd_open_run_has_side(open_run, GD_SIDE_PROBE_GRADIENT))
        shown |= GD_SHOWN_PROBE;
    if (gd_open_run_has_side(open_run, GD_SIDE_PARAMETERS))
        shown |= GD_SHOWN_PARAMETERS;
    if (gd_open_run_has_side(open_run, GD_SIDE_OUTPUTS))
        shown |= GD_SHOWN_OUTPUTS;
    return shown;
}
