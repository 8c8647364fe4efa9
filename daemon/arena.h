// A bounded allocator for unpacking one message: a hostile message runs into the bound instead of the machine's memory
// (protobuf-c was measured to take 60 times a message's bytes), and a message costs no malloc.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

struct gd_arena {
    uint8_t *base;
    size_t capacity_bytes;
    size_t used_bytes;
    bool exhausted;               // an allocation was refused since the last reset: tells "too large" from "malformed"
    ProtobufCAllocator allocator; // hand this to protobuf-c; freeing does nothing
};

// Reserves `capacity_bytes`; pages cost memory once they are used. Returns 0 or -ENOMEM.
__attribute__((warn_unused_result)) int gd_arena_init(struct gd_arena *arena, size_t capacity_bytes);

// Forgets everything allocated since the last reset, and gives all but 1 MiB back to the system.
void gd_arena_reset(struct gd_arena *arena);

void gd_arena_deinit(struct gd_arena *arena);
