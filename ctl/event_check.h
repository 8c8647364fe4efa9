// What must hold of the events of one file, one after another.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "faults.h"
#include "tag_table.h"
#include "tensorboard.pb-c.h"

enum gd_session_state {
    GD_SESSION_NONE,    // no SessionLog yet
    GD_SESSION_UNKNOWN, // no START, which is a fault already or stood in a record that is
    GD_SESSION_STARTED,
    GD_SESSION_STOPPED,
};

struct gd_event_check {
    struct gd_faults *faults; // borrowed
    struct gd_tag_table tags;
    uint64_t n_records;
    bool by_gradientd; // the file's first record says so
    enum gd_session_state session;

    bool has_steps; // there is a value that is no plugin's setting
    int64_t step_min, step_max;

    // In a file of another writer: values at steps that are not above their tag's last one, and the first one's record.
    uint64_t n_fallen;
    uint64_t fallen_offset;
};

void gd_event_check_init(struct gd_event_check *check, struct gd_faults *faults);
void gd_event_check_deinit(struct gd_event_check *check);

// Counts the record at `offset`; what is wrong with its event goes to the faults. NULL: it could not be read, which is
// a fault already.
void gd_event_check_record(struct gd_event_check *check, uint64_t offset, const Tensorboard__Event *event);
