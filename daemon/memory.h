// A run's memory: a sealed memfd that the client made, mapped and locked by the daemon; or, for a client that cannot
// map memory and sends its elements inline, memory of the daemon's own with the same layout.
//
// Nothing in it is trusted: the daemon never takes a length, offset or index from it. Elements, second moments and
// norms are numbers, whatever they are; the state halves, the outbox and the headers are written only, but for the one
// time a run is resumed: then they are copied before they are checked.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"
#include "event_path.h"
#include "layout.h"
#include "run_state.h"

// Which file a memfd is: the same for all descriptors of it, in every process.
struct gd_memory_id {
    dev_t device;
    ino_t inode;
};

struct gd_memory {
    int fd; // kept open: closing any descriptor of the file would drop the POSIX lock; -1: the daemon's own memory
    struct gd_memory_id id; // of the memfd
    uint8_t *base;
    struct gd_layout layout; // the daemon's own copy
};

// One header copy. Readers take the copy with a valid checksum and the higher sequence.
struct gd_memory_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t state_checksum; // crc32c of state half `sequence mod 2`
    uint64_t total_bytes;
    uint64_t open_run_digest;
    uint64_t appended_bytes; // of the event file: where the outbox ends
    uint32_t reserved;
    uint32_t checksum; // crc32c of the fields above and the sequence
    uint64_t sequence; // stored last
};

// Checks and maps `fd`: a regular memfd of `uid` with SHRINK, GROW and SEAL seals, open for writing, exactly
// layout->total_bytes long, not hugetlb, locked by no other process. Returns 0, or a negative errno with *ret_error
// set. gd_memory_deinit() closes `fd` in every case: this may be the last descriptor, and freeing its pages takes 0.3 s
// a gigabyte, which the caller may not have.
__attribute__((warn_unused_result)) int gd_memory_attach_consume(struct gd_memory *memory, int fd, uid_t uid,
                                                                 const struct gd_layout *layout,
                                                                 struct gd_error *ret_error);

// Identifies a memfd. Returns 0, or -EBADMSG with *ret_error set where `fd` is none.
__attribute__((warn_unused_result)) int gd_memory_identify(int fd, struct gd_memory_id *ret_id,
                                                           struct gd_error *ret_error);

// Takes the lock again after a descriptor of the same file was closed, which dropped it. Returns 0 or -EBADMSG.
__attribute__((warn_unused_result)) int gd_memory_relock(const struct gd_memory *memory, struct gd_error *ret_error);

enum gd_memory_past {
    GD_MEMORY_NEW = 0,     // nothing was ever committed
    GD_MEMORY_RESUMES = 1, // holds a run's last commit
};

// What the last commit left behind.
struct gd_memory_restored {
    uint64_t appended_bytes; // of the event file
    uint64_t written_bytes;  // of those, in the file
};

// Looks for a commit of the OpenRun with this digest. GD_MEMORY_RESUMES: its state is copied to `ret_state`
// (layout.state_bytes), whose contents are whole but not to be trusted, and *ret_restored is set. A negative errno with
// *ret_error set: damaged, of another layout version or another OpenRun.
__attribute__((warn_unused_result)) int gd_memory_restore(const struct gd_memory *memory, uint64_t open_run_digest,
                                                          struct gd_run_state *ret_state,
                                                          struct gd_memory_restored *ret_restored,
                                                          struct gd_error *ret_error);

// Publishes what a resumed run has committed: the words of all free slots and the commits word.
void gd_memory_publish(struct gd_memory *memory, const struct gd_open_run *open_run, struct gd_run_state *state);

// Makes memory of the daemon's own. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_memory_init_own(struct gd_memory *memory, const struct gd_layout *layout);

// Unmaps, unlocks and closes. Takes {.fd = -1} too, and leaves it behind.
void gd_memory_deinit(struct gd_memory *memory);

// What one commit stores.
struct gd_memory_commit {
    const struct gd_open_run *open_run;
    struct gd_run_state *state; // layout.state_bytes long; its sequence is the commit's
    const uint8_t *records;     // appended to the outbox, which has room for them
    size_t records_bytes;
    uint64_t appended_bytes; // of the event file, before `records`
};

// The commit order of docs/protocol.md: the spare half of the state, the records, header copy sequence mod 2, and last
// the slot words of all slots that are not in use. Returns true when the client waits for Released.
bool gd_memory_commit(struct gd_memory *memory, const struct gd_memory_commit *commit);

// What is added to the notices word. A client that does not care for alerts now looks at its lower half alone.
enum gd_notice {
    GD_NOTICE_ERROR = 1,
    GD_NOTICE_ALERT = 1 << 16,
};

// Tells the client that a message waits on its socket.
void gd_memory_raise_notice(struct gd_memory *memory, enum gd_notice notice);

// Where the slot's elements begin, of the run's element type.
void *gd_memory_slot(const struct gd_memory *memory, uint32_t slot);

// The same of a stream beside the gradient.
void *gd_memory_side_slot(const struct gd_memory *memory, enum gd_side side, uint32_t slot);
double *gd_memory_group_norms(const struct gd_memory *memory, uint32_t slot, uint32_t n_groups);
struct gd_slot_sums *gd_memory_slot_sums(const struct gd_memory *memory, uint32_t slot);
float *gd_memory_second_moment(const struct gd_memory *memory, uint32_t rule, uint64_t half, uint32_t array);
void gd_memory_store_user_tag(struct gd_memory *memory, uint32_t index, const char *tag);

// The name of the run's event file in the state directory.
void gd_memory_store_event_name(struct gd_memory *memory, const char *name);
void gd_memory_load_event_name(const struct gd_memory *memory, char ret_name[static GD_EVENT_NAME_BYTES]);

void gd_memory_load_user_tag(const struct gd_memory *memory, uint32_t index,
                             char ret_tag[static GRADIENTD_NAME_BYTES_MAX + 1]); // what it holds, cut to a string
