// One run driven without a loop, for the tests of run.h: what the trainer, the server and a reader of the file do.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "run.h"
#include "tensorboard.pb-c.h"

enum { GROUPS = 3, EVENTS_MAX = 128 };

// The run under test.
extern struct gd_run *run;
extern int memory_fd, event_fd;     // the test's own duplicates
extern struct gd_error error;       // of the last call that failed
extern const char *state_directory; // NULL: the trainer brings the event file

// max_lag 2 and inflight 1: slots 0 to 3.
struct gd_open_run *small_open_run(void);

void new_run(struct gd_open_run *open_run); // consumed
int attach(void);
void start(struct gd_open_run *open_run); // both
void start_small(void);
void free_run(void); // in any phase

// The checksums of a header copy of a memory's image as a trainer could write them.
void sign_image(uint8_t *image, const struct gd_layout *layout, int half);

// A submission with everything it may point to in its block, as decode makes it.
struct block {
    struct gd_submission submission;
    struct gd_adam_rates rates[4];
    struct gd_user_scalar scalars[4];
    uint8_t bitmap[4];
    struct gd_squared_norm squared_norms[4];
    double group_norms[4][GROUPS];
    char tags[4][64];
};

struct block *new_block(enum gd_submission_kind kind, uint64_t sequence, int64_t step);
struct block *new_snapshot(uint64_t sequence, int64_t step, uint32_t slot);
// Says what a smaller batch has; `per_group` may be NULL.
void add_squared_norm(struct block *block, double batch_size, double value, const double *per_group);
void add_scalar(struct block *block, const char *tag, float value);

// Fills a slot with a gradient of `value` in each element.
void fill_slot(uint32_t slot, float value);

// Each consumes the block; submit() gives what the run answers, submit_good() asserts that it accepts.
int submit(struct block *block);
void submit_good(struct block *block);
void submit_close(uint64_t sequence);

// Commits everything that is queued. Returns how many submissions that were.
int work(void);

// What the file holds once read_events() has ended the run: scalars and the session, and apart what is neither.
extern Tensorboard__Event *events[EVENTS_MAX];
extern size_t n_events;
extern Tensorboard__Event *tensors[EVENTS_MAX]; // of one value each
extern size_t n_tensors;

void read_events(void);
void free_events(void);

// Leaves of the events those of scalars and sessions, without images, histograms and text.
void drop_tensors(void);

// An event's value of `tag`; NULL: none.
const Tensorboard__Summary__Value *value_in(const Tensorboard__Event *event, const char *tag);

// How often the file has a value of `tag`, and the last one's step and value (each may be NULL).
size_t count_values(const char *tag, int64_t *ret_last_step, float *ret_last);

// The value of `tag` among the tensors at a step, -1: its first one; NULL: none.
const Tensorboard__Summary__Value *tensor_at(const char *tag, int64_t step);

size_t count_session_logs(Tensorboard__SessionLog__Status status);
