// The part of decode.h that reads OpenRun and its group table.
#pragma once

#include "error.h"
#include "frame.h"
#include "gradientd.pb-c.h"
#include "message.h"

// Everything but the groups. On success *ret_open_run is the caller's, gd_open_run_free().
__attribute__((warn_unused_result)) int gd_decode_open_run(const Gradientd__OpenRun *message,
                                                           const struct gd_frame *frame,
                                                           struct gd_open_run **ret_open_run,
                                                           struct gd_error *ret_error);
