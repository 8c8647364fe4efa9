// Which streams a run sends: OpenRun's and a Snapshot's.
#pragma once

#include "error.h"
#include "gradientd.pb-c.h"
#include "message.h"

// Of a stream: far above any memory, and far from where sums of sizes in bytes would overflow 64 bits.
#define GD_ELEMENTS_MAX (UINT64_C(1) << 40)

// Reads OpenRun's streams. Returns 0 or -EBADMSG with *ret_error set, like the others.
__attribute__((warn_unused_result)) int gd_decode_streams(const Gradientd__OpenRun *message,
                                                          struct gd_open_run *open_run, struct gd_error *ret_error);

// The group table is read: what depends on the groups' elements is settled, and checked.
__attribute__((warn_unused_result)) int gd_decode_streams_end(struct gd_open_run *open_run, struct gd_error *ret_error);

// Checks a Snapshot's streams: GRADIENT once, each other one at most once and in a slot. Sets *ret_gradient.
__attribute__((warn_unused_result)) int gd_decode_snapshot_streams(const Gradientd__Snapshot *message,
                                                                   const Gradientd__StreamElements **ret_gradient,
                                                                   struct gd_error *ret_error);

// Sets the submission's sides from streams that were checked.
void gd_decode_snapshot_sides(const Gradientd__Snapshot *message, struct gd_submission *submission);
