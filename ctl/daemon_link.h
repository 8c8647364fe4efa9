// A connection to a daemon whose status is asked for: frames, one question and its answer at a time, none of which can
// take longer than its timeout.
#pragma once

#include <stdint.h>
#include <sys/socket.h>

#include "arena.h"
#include "daemon_socket.h"
#include "gradientd.pb-c.h"
#include "waiting.h"

enum gd_trouble_kind {
    GD_TROUBLE_NONE,
    GD_TROUBLE_NO_DAEMON,   // no place could be connected to, see the search
    GD_TROUBLE_SILENT,      // it does not answer in time
    GD_TROUBLE_GONE,        // it closed the connection
    GD_TROUBLE_REFUSED,     // its Error, see the code and the text
    GD_TROUBLE_GARBAGE,     // what it sent is no answer
    GD_TROUBLE_MACHINE,     // no memory, or no descriptor
    GD_TROUBLE_INTERRUPTED, // the waiter said -ECANCELED
};

enum { GD_TROUBLE_TEXT_BYTES = 2048 };

// Why there is no answer.
struct gd_trouble {
    enum gd_trouble_kind kind;
    int error;                        // a negative errno
    int code;                         // an ErrorCode, of GD_TROUBLE_REFUSED
    char text[GD_TROUBLE_TEXT_BYTES]; // what happened and what to do, from the wire in part: not printable as it is
};

struct gd_daemon_link {
    int fd; // -1: not connected
    struct gd_waiter waiter;
    int64_t deadline_ms;
    struct ucred peer; // of the process that listens: systemd's where that made the socket
    uint8_t *input;
    size_t input_bytes;
    struct gd_socket_search search;
};

// Connects as gd_daemon_socket_connect() does and says Hello, all of it within `timeout_ms`. Returns 0, or a negative
// errno with *ret_trouble set. `ret_link` is to be closed in any case.
__attribute__((warn_unused_result)) int gd_daemon_link_open(const char *path, int timeout_ms,
                                                            const struct gd_waiter *waiter,
                                                            struct gd_daemon_link *ret_link,
                                                            struct gd_trouble *ret_trouble);

// Sends a request and waits for its Status, which is unpacked into `arena` and lasts as long as what that holds.
// Returns 0, or a negative errno with *ret_trouble set: the link is of no more use then.
__attribute__((warn_unused_result)) int gd_daemon_link_ask(struct gd_daemon_link *link,
                                                           const Gradientd__StatusRequest *request, int64_t deadline_ms,
                                                           struct gd_arena *arena, const Gradientd__Status **ret_status,
                                                           struct gd_trouble *ret_trouble);

// Takes one that is closed too.
void gd_daemon_link_close(struct gd_daemon_link *link);

// Describes a failure; returns -`number`.
__attribute__((format(printf, 4, 5))) int gd_trouble_set(struct gd_trouble *ret_trouble, enum gd_trouble_kind kind,
                                                         int number, const char *format, ...);
