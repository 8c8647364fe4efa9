// Where a submission's elements lie in a run's shared memory: to copy them out, and in again.
#pragma once

#include <stdint.h>

#include "layout.h"
#include "recorded.h"

struct gd_element_place {
    enum gd_recorded_stream stream;
    enum gd_element_type type;
    uint64_t offset; // from the start of the memory
    uint64_t bytes;
};

enum { GD_ELEMENT_PLACES_MAX = 1 + GD_SIDES };

// The places of a submission's elements; none where they come inline or there are none. Returns how many there are, or
// -EINVAL where the layout has no such slot or stream.
__attribute__((warn_unused_result)) int gd_element_places(const struct gd_open_run *open_run,
                                                          const struct gd_layout *layout,
                                                          const struct gd_submission *submission,
                                                          struct gd_element_place ret_places[GD_ELEMENT_PLACES_MAX]);
