// The hyperparameters of an OpenRun.
#pragma once

#include "error.h"
#include "gradientd.pb-c.h"
#include "message.h"

// Fills `ret_hparams`, whose block is the caller's. Returns 0, or a negative errno with *ret_error set where it is
// -EBADMSG.
__attribute__((warn_unused_result)) int gd_decode_hparams(const Gradientd__OpenRun *message,
                                                          struct gd_hparams *ret_hparams, struct gd_error *ret_error);
