// Going on with a run that another daemon, or this one before it was killed, has left in its shared memory.
#pragma once

#include "run.h"

// Restores what the memory's last commit holds. Its checksums only tell accidents: the trainer can write them, so every
// count, index and rate is checked before it is used. Returns enum gd_memory_past, GD_MEMORY_NEW without having changed
// anything, or a negative errno with *ret_error set; then the run is of no use.
__attribute__((warn_unused_result)) int gd_run_resume(struct gd_run *run, struct gd_memory_restored *ret_restored,
                                                      struct gd_error *ret_error);
