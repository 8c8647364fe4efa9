// The shared memories of fuzz_session.c, one for each OpenRun: made once, since that takes a millisecond, and new again
// for each input that used them.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "message.h"

struct session_memory {
    struct gd_open_run *open_run;
    struct gd_layout layout;
    int fd;
    uint8_t *base;
    bool is_used, has_hole;
};

void session_memories_init(void);
void session_memories_renew(void);

// Whether one of them was changed behind the daemon's back.
bool session_memories_are_spoilt(void);

// That of an OpenRun, by its number; it counts as used.
struct session_memory *session_memory_of(int open_run);

// Changes 8 bytes of what the daemon keeps in it, at one of 256 places.
void session_memory_rewrite(int open_run, uint8_t place, uint8_t value);

// Takes one of its first 256 pages away.
void session_memory_punch(int open_run, uint8_t page);
