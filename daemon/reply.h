// What the daemon says to a client: plain values into messages on a connection.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "connection.h"
#include "error.h"
#include "layout.h"

void gd_reply_welcome(struct gd_connection *connection);
void gd_reply_layout(struct gd_connection *connection, const struct gd_layout *layout);
// `event_path`: of a file the daemon created, else NULL.
void gd_reply_attached(struct gd_connection *connection, uint64_t committed_sequence, uint64_t written_offset,
                       const char *event_path);

// What an Alert says. `text` and `group` (NULL: none) are borrowed.
struct gd_alert_message {
    const char *rule;
    int64_t step;
    bool onset;
    const char *text;
    const char *group;
};

// Fills a message's field, which borrows what `alert` does.
void gd_reply_fill_alert(const struct gd_alert_message *alert, Gradientd__Alert *ret_alert);

// A message's field, which protobuf-c has not const, of a text that nothing writes to before the message is packed.
char *gd_reply_borrow(const char *text);

// Returns whether it was sent: it may be lost where the client does not read.
bool gd_reply_alert(struct gd_connection *connection, const struct gd_alert_message *alert);

void gd_reply_released(struct gd_connection *connection, uint64_t committed_sequence);
void gd_reply_error(struct gd_connection *connection, const struct gd_error *error);

// To a client that gets no connection: as far as its socket takes it at once.
void gd_reply_error_to(int fd, const struct gd_error *error);
