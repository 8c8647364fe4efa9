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

// Frames, the order of messages, OpenRun.
struct offences offences_opening(void);

// Attach and its descriptors. Event files are made below `directory`.
struct offences offences_attaching(const char *directory);

// Snapshot, Scalars, CloseRun.
struct offences offences_running(const char *directory);

// Elements that come inline, and other payloads.
struct offences offences_inline(void);

#define OFFENCE(name) static void name(struct raw_client *client)
#define OFFENCES(table) ((struct offences){table, sizeof(table) / sizeof(table[0])})
