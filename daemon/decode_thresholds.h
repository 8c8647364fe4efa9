// The part of decode.h that reads OpenRun's thresholds.
#pragma once

#include "error.h"
#include "gradientd.pb-c.h"
#include "message.h"

// What is absent has its default; so has everything where `message` is NULL.
__attribute__((warn_unused_result)) int gd_decode_thresholds(const Gradientd__RuleThresholds *message,
                                                             struct gd_alert_thresholds *ret_thresholds,
                                                             struct gd_error *ret_error);
