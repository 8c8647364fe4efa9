// The first message of each kind as a good client sends it, and the bytes of it: to be cut, slowed down or repeated.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "raw_client.h"

enum { RAW_FRAME_BYTES_MAX = 1024 };

struct raw_frame {
    uint8_t data[RAW_FRAME_BYTES_MAX];
    size_t bytes;
};

// The bytes that `send` would send.
void raw_frame_capture(struct raw_frame *frame, void (*send)(struct raw_client *client));

void raw_send_hello(struct raw_client *client);
void raw_send_open_run(struct raw_client *client);
void raw_send_attach(struct raw_client *client); // declares memory and an event file, and brings neither
void raw_send_snapshot(struct raw_client *client);
void raw_send_scalars(struct raw_client *client);
void raw_send_close_run(struct raw_client *client);
