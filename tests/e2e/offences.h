// What a client can do wrong, and what the daemon says to it.
#pragma once

#include <stddef.h>

#include "raw_client.h"

// One thing a client does wrong after getting to `stage` as it should.
struct offence {
    const char *name;
    enum raw_stage stage;
    void (*commit)(struct raw_client *client);
    Gradientd__ErrorCode code;
    const char *field;
    const char *says; // part of the Error's text
};

struct offences {
    const struct offence *offences;
    size_t n_offences;
};

// Event files are made below `directory`.

// Frames, and messages that are none, come out of order or with a payload.
struct offences offences_framing(void);

// OpenRun and the group table.
struct offences offences_opening(void);

// Which groups are shown one by one.
struct offences offences_selecting(void);

// Attach and its descriptors but for the memory.
struct offences offences_attaching(const char *directory);

// Memory that is no new memory.
struct offences offences_memory(const char *directory);

// Memory that belongs to another user; only root can make it.
struct offences offences_memory_of_another_user(const char *directory);

// Memory of huge pages; not every kernel has them.
struct offences offences_memory_of_huge_pages(const char *directory);

// Snapshot, Scalars, CloseRun of a run in shared memory.
struct offences offences_running(const char *directory);

// Elements that come inline, and other payloads.
struct offences offences_inline(void);

// Start vectors.
struct offences offences_starting(const char *directory);

#define OFFENCE(name) static void name(struct raw_client *client)
#define OFFENCES(table) ((struct offences){table, sizeof(table) / sizeof(table[0])})

// X(name, text): texts that are no UTF-8 without control characters.
#define OFFENCES_TEXTS(X)                                                                                              \
    X(overlong, "\xc0\xaf")                                                                                            \
    X(overlong_3, "\xe0\x80\xaf")                                                                                      \
    X(overlong_4, "\xf0\x80\x80\xaf")                                                                                  \
    X(surrogate, "\xed\xa0\x80")                                                                                       \
    X(above_unicode, "\xf4\x90\x80\x80")                                                                               \
    X(truncated, "layer\xe2\x82")                                                                                      \
    X(interrupted, "\xe2\x82weight")                                                                                   \
    X(stray, "\x80")                                                                                                   \
    X(latin_1, "\xfc"                                                                                                  \
               "bung")                                                                                                 \
    X(newline, "a\nb")                                                                                                 \
    X(escape, "\x1b[2J")                                                                                               \
    X(delete, "\x7f")                                                                                                  \
    X(next_line, "\xc2\x85")
