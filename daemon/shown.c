#include "shown.h"

uint32_t gd_shown(const struct gd_open_run *open_run) {
    uint32_t shown = GD_SHOWN_ALWAYS;
    if (gd_adam_has_second_moment(&open_run->adam))
        shown |= GD_SHOWN_SECOND_MOMENT;
    if (open_run->n_shadows > 0)
        shown |= GD_SHOWN_SHADOWS;
    if (open_run->series.n_series > 0)
        shown |= GD_SHOWN_GROUPS;
    return shown;
}
