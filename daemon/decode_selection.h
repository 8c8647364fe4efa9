// The part of decode.h that reads which groups are shown one by one.
#pragma once

#include "error.h"
#include "gradientd.pb-c.h"
#include "group_names.h"

// Returns 0, or a negative errno with *ret_error set. In every case what is in `ret_selection` is the caller's,
// gd_group_selection_deinit(); it must be zero before.
__attribute__((warn_unused_result)) int gd_decode_selection(const Gradientd__OpenRun *message,
                                                            struct gd_group_selection *ret_selection,
                                                            struct gd_error *ret_error);
