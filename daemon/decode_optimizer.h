// The part of decode.h that reads what OpenRun says of the optimiser: its rule and variant, the rates of its parameter
// groups, which of its state is handed over, and which other rules are followed beside it.
#pragma once

#include "error.h"
#include "gradientd.pb-c.h"
#include "message.h"

// Which start vector a start stream is: enum gd_start, -1: none.
int gd_start_of(Gradientd__StreamKind kind);

// Fills these fields of `open_run`.
__attribute__((warn_unused_result)) int gd_decode_optimizer(const Gradientd__OpenRun *message,
                                                            struct gd_open_run *open_run, struct gd_error *ret_error);
