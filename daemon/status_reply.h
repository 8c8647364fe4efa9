// Status: plain values into a message on a connection.
#pragma once

#include <limits.h>

#include "alert_ring.h"
#include "counters.h"
#include "reply.h"

enum {
    // What one Status tells of at most. More runs are asked for again; so many users hold a descriptor each, and then
    // the daemon has hardly any left.
    GD_STATUS_RUNS_MAX = 256,
    GD_STATUS_USERS_MAX = 1024,
    // With 256 alerts and 1,024 users, each as long as it can be, 200 KiB are left for runs, of which each takes 7 KiB
    // at most.
    GD_STATUS_BYTES_MAX = 960 << 10,
};

// A run. The strings are borrowed.
struct gd_run_status {
    uint64_t number;
    const char *run;
    uid_t uid;
    pid_t pid; // 0: not known
    uint32_t groups;
    uint64_t elements;
    int64_t step; // -1: none yet
    uint64_t committed_sequence, received_sequence;
    uint64_t snapshots;
    uint64_t skipped;
    double snapshots_per_second;   // NaN: not known yet
    double seconds_since_snapshot; // NaN: none has come
    double attached_seconds;
    uint64_t memory_bytes;
    uint64_t event_bytes;
    uint64_t event_bytes_waiting;
    char event_path[PATH_MAX]; // "": not known; UTF-8 without control characters
    bool finishing;
    struct gd_alert_message last_alert; // rule NULL: there was none
    uint32_t alerts_on;                 // bit per enum gd_alert_rule, and GD_ALERT_RULES for `silence`
};

struct gd_status {
    const struct gd_run_status *runs;
    uint32_t n_runs;
    bool more_runs; // there are more than these
    const struct gd_daemon_status *daemon;
    const struct gd_quota_holding *users;
    uint32_t n_users;
    const struct gd_recent_alert *const *alerts;
    uint32_t n_alerts;
    uint64_t last_alert_number;
    bool sees_all;
};

// Sends the Status, with as many of its runs, from the first on, as fit. Returns 0, or -ENOMEM: nothing was sent.
__attribute__((warn_unused_result)) int gd_reply_status(struct gd_connection *connection,
                                                        const struct gd_status *status);
