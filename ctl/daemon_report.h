// What a daemon tells of itself, its runs and their alerts, asked again and again.
#pragma once

#include "arena.h"
#include "daemon_link.h"
#include "daemon_options.h"

// A connection that is made where there is none, and what was told last.
struct gd_daemon_watch {
    const struct gd_daemon_options *options; // borrowed
    struct gd_waiter waiter;
    struct gd_daemon_link link;
    struct gd_arena arena; // of all that is told

    // Valid until the next question; from all parts of an answer that comes in several.
    const Gradientd__DaemonStatus *daemon;
    const Gradientd__Status *first; // for users, alerts and what is said once
    const Gradientd__RunStatus **runs;
    size_t n_runs, runs_room;
};

// Returns 0, or -ENOMEM having said so on standard error.
__attribute__((warn_unused_result)) int gd_daemon_watch_init(struct gd_daemon_watch *watch,
                                                             const struct gd_daemon_options *options,
                                                             const struct gd_waiter *waiter);

void gd_daemon_watch_deinit(struct gd_daemon_watch *watch);

// Asks for everything, and for alerts above a number (UINT64_MAX: none). Returns 0, or a negative errno with
// *ret_trouble set: the next call connects anew.
__attribute__((warn_unused_result)) int gd_daemon_watch_ask(struct gd_daemon_watch *watch, uint64_t alerts_after,
                                                            struct gd_trouble *ret_trouble);

// The run's name as it is shown: that of a log directory itself is ".".
const char *gd_run_name(const char *run);

// How many messages of a run the daemon has received and not committed.
uint64_t gd_run_lag(const Gradientd__RunStatus *run);

// Says on standard error why there is no answer; returns GD_EXIT_FAILED, or GD_EXIT_DONE where it is not wanted any
// more.
int gd_trouble_print(const struct gd_trouble *trouble);
