// A client that sends what it is told to, right or wrong, over a socket pair to a session_host.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gradientd/protocol.h"
#include "run_state.h"

// What decides what is said: bytes, and 0 after their end.
struct session_input {
    const uint8_t *data;
    size_t bytes;
};

uint8_t session_take(struct session_input *input);

enum session_stage { STAGE_CONNECTED, STAGE_GREETED, STAGE_OPENED, STAGE_ATTACHED };

struct session_client {
    int fd;                   // -1: not connected
    enum session_stage stage; // of a good client's way: what was sent last
    int open_run;             // number of the last OpenRun that was sent, as of its memory
    bool is_inline;           // attached without memory
    uint64_t sequence;        // of the last message
    int64_t step;
    uint64_t slot_used[GD_SLOTS_MAX]; // by the message of this sequence
    int event_fd;                     // -1: none yet
    uint32_t event_attachments;       // how often it was given away
    bool refused;                     // an Error came

    uint8_t unsent[8192];
    size_t unsent_bytes;
    int unsent_fds[8]; // borrowed
    size_t n_unsent_fds;
    uint8_t unread[256 << 10]; // a Status with all alerts
    size_t unread_bytes;
};

// Opens what any client may send, once.
void session_clients_prepare(void);

void session_client_init(struct session_client *client);

// When the daemon has done with it: checks the event file, where nothing was done that may spoil it.
void session_client_deinit(struct session_client *client);

void session_client_connect(struct session_client *client); // once more, where it is connected
void session_client_close(struct session_client *client);
void session_client_shutdown(struct session_client *client);

// Puts a message where session_client_send() takes it from.
void session_client_advance(struct session_client *client);
void session_client_hello(struct session_client *client, struct session_input *input);
void session_client_open_run(struct session_client *client, uint8_t number);
void session_client_attach(struct session_client *client, uint8_t options);
void session_client_snapshot(struct session_client *client, struct session_input *input);
void session_client_inline(struct session_client *client, struct session_input *input);
void session_client_start_vector(struct session_client *client, struct session_input *input);
void session_client_scalars(struct session_client *client, struct session_input *input);
void session_client_close_run(struct session_client *client, struct session_input *input);
void session_client_status_request(struct session_client *client);
void session_client_garbage(struct session_client *client, struct session_input *input);
void session_client_stray_fds(struct session_client *client, uint8_t n_fds);

// Sends what is there, or half of it.
void session_client_send(struct session_client *client, bool half);

// Reads what has come; every answer must be a whole and valid one, and an Error the last.
void session_client_read(struct session_client *client);
