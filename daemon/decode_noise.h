// The part of decode.h that reads what a Snapshot says of its batch: its size, clipping, norms of smaller batches.
#pragma once

#include <stddef.h>

#include "error.h"
#include "gradientd.pb-c.h"
#include "message.h"

// Returns 0, or -EBADMSG with *ret_error set.
__attribute__((warn_unused_result)) int gd_decode_noise_check(const Gradientd__Snapshot *snapshot,
                                                              struct gd_error *ret_error);

// What gd_decode_noise() fills from submission->squared_norms on, a multiple of 8.
size_t gd_decode_noise_bytes(const Gradientd__Snapshot *snapshot);

// Copies what was checked.
void gd_decode_noise(const Gradientd__Snapshot *snapshot, struct gd_submission *submission);
