// What a run can show beyond what every run does: a function of OpenRun alone.
#pragma once

#include <stdint.h>

#include "message.h"

enum gd_shown {
    GD_SHOWN_ALWAYS = 0,
    GD_SHOWN_SECOND_MOMENT = 1 << 0, // the rule keeps one
    GD_SHOWN_SHADOWS = 1 << 1,       // other rules on the same gradients
    GD_SHOWN_GROUPS = 1 << 2,        // groups one by one
    GD_SHOWN_PROBE = 1 << 3,         // gradients on fixed samples
    GD_SHOWN_PARAMETERS = 1 << 4,
    GD_SHOWN_OUTPUTS = 1 << 5,
    GD_SHOWN_EFFECTIVE_STEP = 1 << 6, // the rule's is known
    GD_SHOWN_ALL = (1 << 7) - 1,
};

// A set of enum gd_shown. What a trainer may say at any step (a batch size, norms of smaller batches) is not in it.
uint32_t gd_shown(const struct gd_open_run *open_run);
