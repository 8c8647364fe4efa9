// How the daemon and its runs are doing, gathered from where it is known. On the loop's thread; nothing here waits for
// a file system.
#pragma once

#include "counters.h"
#include "decode.h"
#include "session.h"

// Everything that is asked. Borrowed.
struct gd_status_sources {
    const struct gd_session_host *host;
    struct gd_quota *quota;
    double started; // seconds since the epoch
    struct gd_session *const *sessions;
    uint32_t n_sessions;
};

// What of the daemon as a whole.
void gd_status_measure(const struct gd_status_sources *sources, struct gd_daemon_status *ret_status);

// Answers a StatusRequest of the client `asker`: with its user's runs and alerts, or with all for whom
// gd_admission_sees_all() says so. Returns 0, or -ENOMEM: it was not answered.
__attribute__((warn_unused_result)) int gd_status_answer(const struct gd_status_sources *sources,
                                                         struct gd_session *asker,
                                                         const struct gd_status_request *request);
