// Where a test makes the daemon die, and where it was when a test killed it. Only the tests' own daemon, built with
// GD_FAULTS, has any of this: a page that it shares with the test. In every other build the calls are empty.
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

// In the order in which a run comes by them.
enum gd_fault_point {
    GD_FAULT_ATTACH_LOCKED,      // the memory is locked, and nothing read from it yet
    GD_FAULT_ATTACH_RESTORED,    // a past was looked for
    GD_FAULT_ATTACH_PUBLISHED,   // the words of a resumed run are stored
    GD_FAULT_ATTACH_UNANSWERED,  // the event file is accepted, Attached is not sent
    GD_FAULT_ATTACH_ANSWERED,    // it is
    GD_FAULT_SUBMISSION_QUEUED,  // accepted, nothing done
    GD_FAULT_KERNEL_CHUNK,       // between two chunks of a snapshot
    GD_FAULT_ANALYSED,           // the sums are there, no record made
    GD_FAULT_COMMIT_BEGUN,       // the records are made, nothing stored
    GD_FAULT_COMMIT_STATE,       // the spare half of the state
    GD_FAULT_COMMIT_RECORDS,     // the records
    GD_FAULT_COMMIT_TORN_HEADER, // the header but for its sequence
    GD_FAULT_COMMIT_HEADER,      // all of it, no slot word
    GD_FAULT_COMMIT_SLOT_WORDS,  // all slot words, not the commits word
    GD_FAULT_COMMIT_DONE,        // all, the client is not told
    GD_FAULT_WRITE_BEGUN,        // the writer has a batch, nothing of it is written
    GD_FAULT_WRITE_UNTOLD,       // some is written, and not counted
    GD_FAULT_WRITE_COUNTED,      // and counted
    GD_FAULT_END_COMMITTED,      // the end record is committed, the writer not told to finish
    GD_FAULT_FILE_CLOSED,        // the event file is whole and closed, Released is not sent
    GD_FAULT_POINT_COUNT,
};

// What a page shows of a daemon; of one run, the last that was attached.
struct gd_fault_page {
    _Atomic uint32_t armed;           // 1 + the point at which the daemon kills itself; 0: none
    _Atomic uint32_t armed_time;      // the how manieth time that it comes there
    _Atomic uint32_t held;            // 1 + the point at which threads stay as long as it says so; 0: none
    _Atomic uint32_t write_bytes_max; // of one pwrite; 0: no limit
    _Atomic uint32_t later_versions;  // by how many its layout is another than this build's ...
    _Atomic uint32_t more_bytes;      // ... and how many bytes more a run takes in it
    _Atomic uint32_t reached[GD_FAULT_POINT_COUNT];
    _Atomic uint32_t attaching; // 1 from Attach to Attached
    _Atomic uint32_t kernels;   // threads inside one
    _Atomic uint64_t appended;  // bytes of the event file that are committed
    _Atomic uint64_t written;   // of those, in the file
};

#ifdef GD_FAULTS

// The page, or one that nobody else sees where $GRADIENTD_FAULT_PAGE names none.
struct gd_fault_page *gd_fault_page(void);

const char *gd_fault_point_name(enum gd_fault_point point);

// Counts, and stays or dies here where the page says so.
void gd_fault_reach(enum gd_fault_point point);

// How many of `bytes` one pwrite may take.
size_t gd_fault_write_bytes(size_t bytes);

static inline uint32_t gd_fault_layout_version(uint32_t version) {
    return version + gd_fault_page()->later_versions;
}

static inline uint64_t gd_fault_layout_bytes(uint64_t bytes) {
    return bytes + gd_fault_page()->more_bytes;
}

static inline void gd_fault_set_attaching(uint32_t attaching) {
    gd_fault_page()->attaching = attaching;
}

static inline void gd_fault_enter_kernel(void) {
    gd_fault_page()->kernels++;
}

static inline void gd_fault_leave_kernel(void) {
    gd_fault_page()->kernels--;
}

static inline void gd_fault_tell_bytes(uint64_t appended, uint64_t written) {
    gd_fault_page()->appended = appended;
    gd_fault_page()->written = written;
}

#else

static inline void gd_fault_reach(enum gd_fault_point point) {
    (void)point;
}

static inline size_t gd_fault_write_bytes(size_t bytes) {
    return bytes;
}

static inline uint32_t gd_fault_layout_version(uint32_t version) {
    return version;
}

static inline uint64_t gd_fault_layout_bytes(uint64_t bytes) {
    return bytes;
}

static inline void gd_fault_set_attaching(uint32_t attaching) {
    (void)attaching;
}

static inline void gd_fault_enter_kernel(void) {
}

static inline void gd_fault_leave_kernel(void) {
}

static inline void gd_fault_tell_bytes(uint64_t appended, uint64_t written) {
    (void)appended;
    (void)written;
}

#endif
