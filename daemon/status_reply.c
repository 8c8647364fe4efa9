#include "status_reply.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "alert_text.h"

enum { ENTRY_BYTES = 8 }; // of an entry of a repeated field: its tag and its length

// Everything that a Status message points to. One heap block.
struct parts {
    Gradientd__RunStatus run[GD_STATUS_RUNS_MAX];
    Gradientd__RunStatus *runs[GD_STATUS_RUNS_MAX];
    Gradientd__Alert last_alert[GD_STATUS_RUNS_MAX];
    char *alerts_on[GD_STATUS_RUNS_MAX][GD_ALERT_RULES + 1];
    Gradientd__UserStatus user[GD_STATUS_USERS_MAX];
    Gradientd__UserStatus *users[GD_STATUS_USERS_MAX];
    Gradientd__RecentAlert recent[GRADIENTD_RECENT_ALERTS];
    Gradientd__RecentAlert *recents[GRADIENTD_RECENT_ALERTS];
    Gradientd__Alert alert[GRADIENTD_RECENT_ALERTS];
    Gradientd__Refusals refusal[GD_ERROR_CODES];
    Gradientd__Refusals *refusals[GD_ERROR_CODES];
    Gradientd__UserStatus limits;
    Gradientd__DaemonStatus daemon;
    Gradientd__Status status;
    Gradientd__DaemonMessage message;
};

// A field of protobuf-c and whether it is there.
#define SET(body, field, value) ((body)->field = (value), (body)->has_##field = true)

static void fill_alerts_on(const struct gd_run_status *run, char **names, Gradientd__RunStatus *body) {
    for (uint32_t rule = 0; rule <= GD_ALERT_RULES; rule++)
        if (run->alerts_on >> rule & 1)
            names[body->n_alerts_on++] =
                gd_reply_borrow(rule < GD_ALERT_RULES ? gd_alert_rule_name((enum gd_alert_rule)rule) : "silence");
    body->alerts_on = names;
}

static void fill_progress(const struct gd_run_status *run, Gradientd__RunStatus *body) {
    if (run->step >= 0)
        SET(body, step, run->step);
    SET(body, committed_sequence, run->committed_sequence);
    SET(body, received_sequence, run->received_sequence);
    SET(body, snapshots, run->snapshots);
    SET(body, skipped, run->skipped);
    if (!isnan(run->snapshots_per_second))
        SET(body, snapshots_per_second, run->snapshots_per_second);
    if (!isnan(run->seconds_since_snapshot))
        SET(body, seconds_since_snapshot, run->seconds_since_snapshot);
    SET(body, attached_seconds, run->attached_seconds);
}

static void fill_run(const struct gd_run_status *run, struct parts *parts, uint32_t i) {
    Gradientd__RunStatus *body = &parts->run[i];
    *body = (Gradientd__RunStatus)GRADIENTD__RUN_STATUS__INIT;
    body->run = gd_reply_borrow(run->run);
    SET(body, number, run->number);
    SET(body, uid, run->uid);
    if (run->pid > 0)
        SET(body, pid, (uint32_t)run->pid);
    SET(body, groups, run->groups);
    SET(body, elements, run->elements);
    fill_progress(run, body);
    SET(body, memory_bytes, run->memory_bytes);
    SET(body, event_bytes, run->event_bytes);
    SET(body, event_bytes_waiting, run->event_bytes_waiting);
    if (*run->event_path)
        body->event_path = gd_reply_borrow(run->event_path);
    SET(body, finishing, run->finishing);
    if (run->last_alert.rule) {
        gd_reply_fill_alert(&run->last_alert, &parts->last_alert[i]);
        body->last_alert = &parts->last_alert[i];
    }
    fill_alerts_on(run, parts->alerts_on[i], body);
    parts->runs[i] = body;
}

static void fill_holding(const uint64_t held[GD_QUOTA_KINDS], uid_t uid, Gradientd__UserStatus *body) {
    *body = (Gradientd__UserStatus)GRADIENTD__USER_STATUS__INIT;
    body->uid = uid;
    SET(body, connections, held[GD_QUOTA_CONNECTIONS]);
    SET(body, runs, held[GD_QUOTA_RUNS]);
    SET(body, fds, held[GD_QUOTA_FDS]);
    SET(body, memory_bytes, held[GD_QUOTA_MEMORY]);
}

static void fill_users(const struct gd_status *status, struct parts *parts) {
    for (uint32_t i = 0; i < status->n_users; i++) {
        fill_holding(status->users[i].held, status->users[i].uid, &parts->user[i]);
        parts->users[i] = &parts->user[i];
    }
    parts->status.n_users = status->n_users;
    parts->status.users = parts->users;
}

static void fill_recent(const struct gd_recent_alert *alert, struct parts *parts, uint32_t i) {
    const struct gd_alert_message message = {
        .rule = alert->rule,
        .step = alert->step,
        .onset = alert->onset,
        .text = alert->text,
        .group = *alert->group ? alert->group : NULL,
    };
    Gradientd__RecentAlert *body = &parts->recent[i];
    *body = (Gradientd__RecentAlert)GRADIENTD__RECENT_ALERT__INIT;
    gd_reply_fill_alert(&message, &parts->alert[i]);
    body->number = alert->number;
    body->alert = &parts->alert[i];
    body->run = gd_reply_borrow(alert->run);
    body->run_number = alert->run_number;
    body->time = alert->time;
    SET(body, uid, alert->uid);
    if (alert->pid > 0)
        SET(body, pid, (uint32_t)alert->pid);
    parts->recents[i] = body;
}

static void fill_refusals(const struct gd_counters *counters, struct parts *parts) {
    for (int code = 1; code < GD_ERROR_CODES; code++) {
        Gradientd__Refusals *body = &parts->refusal[code];
        *body = (Gradientd__Refusals)GRADIENTD__REFUSALS__INIT;
        body->code = (Gradientd__ErrorCode)code;
        body->count = counters->refused[code];
        parts->refusals[code - 1] = body;
    }
    parts->daemon.n_refused = GD_ERROR_CODES - 1;
    parts->daemon.refused = parts->refusals;
}

static void fill_counts(const struct gd_daemon_status *daemon, Gradientd__DaemonStatus *body) {
    SET(body, runs, daemon->runs);
    SET(body, connections, daemon->connections);
    SET(body, connections_accepted, daemon->counters.connections);
    SET(body, snapshots, daemon->counters.snapshots);
    SET(body, skipped, daemon->counters.skipped);
    SET(body, element_bytes, daemon->counters.element_bytes);
    SET(body, queued, daemon->queued);
    SET(body, analysis_seconds, (double)daemon->counters.analysis_ns * 1e-9);
    SET(body, event_bytes, daemon->event_bytes);
    SET(body, write_errors, daemon->write_errors);
    SET(body, resident_bytes, daemon->resident_bytes);
}

static void fill_daemon(const struct gd_daemon_status *daemon, struct parts *parts) {
    Gradientd__DaemonStatus *body = &parts->daemon;
    *body = (Gradientd__DaemonStatus)GRADIENTD__DAEMON_STATUS__INIT;
    body->version = gd_reply_borrow(GD_VERSION);
    SET(body, pid, (uint32_t)getpid());
    SET(body, uid, geteuid());
    SET(body, started, daemon->started);
    SET(body, workers, daemon->workers);
    body->kernels = gd_reply_borrow(daemon->kernels);
    body->state_directory = gd_reply_borrow(daemon->state_directory);
    fill_holding(daemon->limits.most, 0, &parts->limits);
    body->limits = &parts->limits;
    SET(body, messages_per_second, daemon->limits.messages_per_second);
    fill_counts(daemon, body);
    fill_refusals(&daemon->counters, parts);
    parts->status.daemon = body;
}

// Takes runs as long as the message stays below its limit.
static void fill_runs(const struct gd_status *status, struct parts *parts) {
    size_t bytes = gradientd__status__get_packed_size(&parts->status);
    uint32_t n_runs = 0;
    while (n_runs < status->n_runs) {
        fill_run(&status->runs[n_runs], parts, n_runs);
        bytes += gradientd__run_status__get_packed_size(parts->runs[n_runs]) + ENTRY_BYTES;
        if (bytes > GD_STATUS_BYTES_MAX)
            break;
        n_runs++;
    }
    parts->status.n_runs = n_runs;
    parts->status.runs = parts->runs;
    SET(&parts->status, more_runs, status->more_runs || n_runs < status->n_runs);
}

int gd_reply_status(struct gd_connection *connection, const struct gd_status *status) {
    struct parts *parts = malloc(sizeof(*parts));
    if (!parts)
        return -ENOMEM;
    parts->status = (Gradientd__Status)GRADIENTD__STATUS__INIT;
    fill_daemon(status->daemon, parts);
    fill_users(status, parts);
    for (uint32_t i = 0; i < status->n_alerts; i++)
        fill_recent(status->alerts[i], parts, i);
    parts->status.n_alerts = status->n_alerts;
    parts->status.alerts = parts->recents;
    SET(&parts->status, last_alert_number, status->last_alert_number);
    SET(&parts->status, sees_all, status->sees_all);
    fill_runs(status, parts);

    parts->message = (Gradientd__DaemonMessage)GRADIENTD__DAEMON_MESSAGE__INIT;
    parts->message.message_case = GRADIENTD__DAEMON_MESSAGE__MESSAGE_STATUS;
    parts->message.status = &parts->status;
    gd_connection_send(connection, &parts->message);
    free(parts);
    return 0;
}
