#include "status.h"

#include <errno.h>
#include <stdlib.h>

#include "resident.h"
#include "session_state.h"
#include "status_reply.h"

// What an answer is made of.
struct answer {
    struct gd_daemon_status daemon;
    struct gd_quota_holding users[GD_STATUS_USERS_MAX];
    const struct gd_recent_alert *alerts[GRADIENTD_RECENT_ALERTS];
    struct gd_run_status *runs; // owned
    struct gd_status status;
};

void gd_status_measure(const struct gd_status_sources *sources, struct gd_daemon_status *ret_status) {
    const struct gd_session_host *host = sources->host;
    struct gd_daemon_status status = {
        .started = sources->started,
        .workers = host->workers,
        .kernels = host->kernels->name,
        .state_directory = host->state_directory,
        .limits = *gd_quota_limits(sources->quota),
        .resident_bytes = gd_resident_bytes(),
        .event_bytes = atomic_load_explicit(&host->thread_counters->event_bytes, memory_order_relaxed),
        .write_errors = atomic_load_explicit(&host->thread_counters->write_errors, memory_order_relaxed),
        .alerts = gd_alert_ring_last(host->alerts),
        .counters = *host->counters,
    };
    for (uint32_t i = 0; i < sources->n_sessions; i++)
        gd_session_add_up(sources->sessions[i], &status);
    *ret_status = status;
}

static bool sees(const struct answer *answer, const struct gd_session *asker, uid_t uid) {
    return answer->status.sees_all || gd_session_uid(asker) == uid;
}

static int by_number(const void *left, const void *right) {
    uint64_t a = gd_session_run_number(*(struct gd_session *const *)left);
    uint64_t b = gd_session_run_number(*(struct gd_session *const *)right);
    return (a > b) - (a < b);
}

// The runs above a number that the asker may see, in the order of their numbers; as many as fit.
static int gather_runs(const struct gd_status_sources *sources, const struct gd_session *asker, uint64_t after,
                       struct answer *answer) {
    struct gd_session **seen = malloc(sources->n_sessions * sizeof(struct gd_session *)); // the asker is one
    uint32_t n_seen = 0;
    if (!seen)
        return -ENOMEM;
    for (uint32_t i = 0; i < sources->n_sessions; i++) {
        struct gd_session *session = sources->sessions[i];
        if (gd_session_run_number(session) > after && sees(answer, asker, gd_session_uid(session)))
            seen[n_seen++] = session;
    }
    qsort(seen, n_seen, sizeof(struct gd_session *), by_number);
    uint32_t n_runs = n_seen < GD_STATUS_RUNS_MAX ? n_seen : GD_STATUS_RUNS_MAX;
    answer->runs = malloc((n_runs + 1) * sizeof(*answer->runs)); // 1: malloc(0) may fail
    for (uint32_t i = 0; answer->runs && i < n_runs; i++)
        gd_session_describe(seen[i], &answer->runs[i]);
    answer->status.more_runs = n_seen > n_runs;
    answer->status.n_runs = n_runs;
    answer->status.runs = answer->runs;
    free(seen);
    return answer->runs ? 0 : -ENOMEM;
}

static void gather_alerts(const struct gd_alert_ring *ring, const struct gd_session *asker, uint64_t after,
                          struct answer *answer) {
    uint64_t last = gd_alert_ring_last(ring);
    uint64_t first = last > GRADIENTD_RECENT_ALERTS ? last - GRADIENTD_RECENT_ALERTS : 0;
    for (uint64_t number = after > first ? after : first; number < last; number++) {
        const struct gd_recent_alert *alert = gd_alert_ring_find(ring, number + 1);
        if (sees(answer, asker, alert->uid))
            answer->alerts[answer->status.n_alerts++] = alert;
    }
    answer->status.alerts = answer->alerts;
    answer->status.last_alert_number = last;
}

int gd_status_answer(const struct gd_status_sources *sources, struct gd_session *asker,
                     const struct gd_status_request *request) {
    struct answer *answer = malloc(sizeof(*answer));
    if (!answer)
        return -ENOMEM;
    uid_t uid = gd_session_uid(asker);
    answer->runs = NULL;
    answer->status =
        (struct gd_status){.daemon = &answer->daemon, .users = answer->users, .sees_all = gd_session_sees_all(asker)};
    gd_status_measure(sources, &answer->daemon);
    answer->status.n_users =
        gd_quota_list(sources->quota, answer->status.sees_all ? NULL : &uid, answer->users, GD_STATUS_USERS_MAX);
    gather_alerts(sources->host->alerts, asker, request->alerts_after, answer);
    int result = gather_runs(sources, asker, request->runs_after, answer);
    if (result == 0)
        result = gd_session_answer(asker, &answer->status);
    free(answer->runs);
    free(answer);
    return result;
}
