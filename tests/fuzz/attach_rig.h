// Runs to attach garbage to. One is made for each OpenRun, with its memory, and put back as it was before every input:
// to make it takes longer than what is tested.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "memory.h"
#include "open_runs.h"
#include "run.h"

enum attach_image {
    IMAGE_ZEROS,     // memory that nobody has used
    IMAGE_NEW,       // holds commit 0
    IMAGE_RUNNING,   // in mid-run, with history, user tags and second moments
    IMAGE_LAST_STEP, // the same at a step after which there is none
    IMAGE_ENDED,
    IMAGES,
};

// A part of the memory that the trainer may have changed.
enum attach_region {
    REGION_HEADER,
    REGION_WORDS,
    REGION_STATE,
    REGION_ADAM,
    REGION_VALUES,
    REGION_DESCRIBED, // and the count of user tags, and whether the run has ended
    REGION_HISTORY,
    REGION_GROUPS,
    REGION_RATES,
    REGION_SHADOWS,
    REGION_SERIES,
    REGION_TAG_STEPS,
    REGION_TAGS,
    REGION_EVENT_NAME,
    REGION_NORMS,
    REGION_SECOND_MOMENTS,
    REGION_SLOTS,
    REGIONS,
};

struct attach_rig {
    struct gd_run *run;
    struct gd_run laid_out;       // as gd_run_new_consume() made it ...
    struct gd_run_state *state;   // ... with its state
    struct gd_run_state *scratch; // of the same size
    int memory_fd;
    uint8_t *base; // of the one mapping there is of it
    uint8_t *images[IMAGES];
};

// Makes it, but for its images, which are all zeros.
void attach_rig_init(struct attach_rig *rig, int open_run);

// The run is laid out again, its memory stays as it is: what is left of a daemon that died.
void attach_rig_forget_run(struct attach_rig *rig);

// The memory is that of an image.
void attach_rig_load(struct attach_rig *rig, enum attach_image image);
void attach_rig_keep(struct attach_rig *rig, enum attach_image image);

// Attaches the memory as a session does. Returns 0 or a negative errno with *ret_error set.
int attach_rig_attach(struct attach_rig *rig, bool has_event_file, struct gd_error *ret_error);

// `bytes` of the region, from 8 x `unit` bytes after its start on, as far as it has them. `half`: of headers and
// states.
uint8_t *attach_rig_find(const struct attach_rig *rig, enum attach_region region, uint32_t half, uint32_t unit,
                         size_t *bytes);

// Makes a header vouch for its half of the state as a trainer could: by the checksums alone, or in all it says.
void attach_rig_sign(struct attach_rig *rig, uint32_t half, bool all);
