// A recorded run that is computed again, in this process, by what the daemon is made of.
//
// Each message is decoded as the daemon decodes it, its elements are put where they were, and it is committed before
// the next one is taken: so the slots that were free when it was recorded are free now. What is written does not depend
// on that, nor on the number of workers.
#pragma once

#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "error.h"
#include "kernels/kernels.h"
#include "recorded.h"
#include "run.h"

enum { GD_REPLAY_WORKERS_MAX = 64 };

struct gd_replay {
    const struct gd_kernels *kernels; // borrowed
    uint32_t workers;
    uint64_t memory_max; // what a run may take, in bytes
    struct gd_arena arena;
    struct gd_run *run; // owned, NULL: no OpenRun yet
    sem_t written;      // posted when the event file's writer has done something
    bool refused;       // the run took no more, and *error of that call said why
};

// `memory_max`: what a run may take, in bytes; a recording can ask for anything. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_replay_init(struct gd_replay *replay, const struct gd_kernels *kernels,
                                                       uint32_t workers, uint64_t memory_max);
void gd_replay_deinit(struct gd_replay *replay);

// Decodes a recorded OpenRun. Returns 0, or a negative errno with *ret_error set where it is -EBADMSG.
__attribute__((warn_unused_result)) int gd_replay_decode_open_run(struct gd_replay *replay,
                                                                  const struct gd_recorded *recorded,
                                                                  struct gd_open_run **ret_open_run,
                                                                  struct gd_error *ret_error);

// Begins the run, which takes over `open_run` and the event file, an empty one open for writing, also when it fails.
// `takes_inline`: its elements come in payloads. Returns as above.
__attribute__((warn_unused_result)) int gd_replay_open_consume(struct gd_replay *replay, struct gd_open_run *open_run,
                                                               bool takes_inline, int event_fd,
                                                               struct gd_error *ret_error);

// Takes a recorded submission, and commits it. Returns as above; replay->refused tells a message that the run refuses,
// as a daemon would, from a recording that is not right. -ETIMEDOUT: the event file cannot be written.
__attribute__((warn_unused_result)) int gd_replay_submit(struct gd_replay *replay, const struct gd_recorded *recorded,
                                                         struct gd_error *ret_error);

// Ends the event file: as after the trainer's death where CloseRun has not come, or `open_ended`, as a daemon leaves a
// run that goes on elsewhere. Returns 0 once all is written, or -ETIMEDOUT.
__attribute__((warn_unused_result)) int gd_replay_end(struct gd_replay *replay, bool open_ended);
