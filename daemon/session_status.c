#include <math.h>
#include <stdio.h>
#include <string.h>

#include "admission.h"
#include "alert_text.h"
#include "session_state.h"
#include "text.h"

// What belongs to the workers while they work, when they do not.
static void copy_progress(struct gd_session *session) {
    const struct gd_run_state *state = session->run->state;
    struct gd_run_report *report = &session->report;
    report->step = state->step;
    report->sequence = state->sequence;
    report->snapshots = state->snapshots;
    report->skipped = state->skipped;
}

void gd_session_keep_alert(struct gd_session *session, const struct gd_alert_message *alert) {
    struct gd_run_report *report = &session->report;
    report->last_alert = *alert;
    snprintf(report->last_text, sizeof(report->last_text), "%s", alert->text);
    report->last_alert.text = report->last_text;
}

// Of a run that was gone on with: which rules are on, and the last alert of all.
static void take_past_alerts(struct gd_session *session) {
    const struct gd_open_run *open_run = session->run->open_run;
    const struct gd_alert_rule_state *rules = session->run->state->alerts.rules;
    const struct gd_alert *last = NULL;
    enum gd_alert_rule last_rule = 0;
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++) {
        if (rules[rule].count == 0)
            continue;
        session->report.alerts_on |= rules[rule].last.onset << rule;
        if (!last || rules[rule].last.step >= last->step) {
            last = &rules[rule].last;
            last_rule = rule;
        }
    }
    if (!last)
        return;
    char text[GD_ALERT_TEXT_BYTES];
    struct gd_alert_message message = gd_session_alert_message(open_run, last_rule, last, text);
    gd_session_keep_alert(session, &message);
}

void gd_session_begin_report(struct gd_session *session) {
    session->report = (struct gd_run_report){
        .number = ++session->host->counters->runs,
        .attached_ms = uv_now(session->host->loop),
    };
    copy_progress(session);
    take_past_alerts(session);
}

static uint64_t element_bytes(const struct gd_open_run *open_run, const struct gd_submission *snapshot) {
    uint64_t bytes = open_run->elements * gd_element_bytes(open_run->element_type);
    for (enum gd_side side = 0; snapshot->sides >> side; side++)
        if (snapshot->sides >> side & 1)
            bytes += open_run->sides[side].elements * gd_element_bytes(open_run->sides[side].element_type);
    return bytes;
}

// Adds the steps that the client says it has dropped since it said so last. It may say anything: the sum of all clients
// stops rather than fall.
static void count_skipped(uint64_t before, uint64_t now, uint64_t *sum) {
    uint64_t more = now > before ? now - before : 0;
    *sum = more < UINT64_MAX - *sum ? *sum + more : UINT64_MAX;
}

void gd_session_count_commit(struct gd_session *session) {
    const struct gd_submission *submission = session->run->working;
    struct gd_counters *counters = session->host->counters;
    if (submission->kind == GD_SUBMISSION_SNAPSHOT) {
        counters->snapshots++;
        counters->element_bytes += element_bytes(session->run->open_run, submission);
        gd_pace_count(&session->report.pace, uv_now(session->host->loop));
    }
    count_skipped(session->report.skipped, session->run->state->skipped, &counters->skipped);
    copy_progress(session);
}

static void tell_event_file(struct gd_event_file *file, struct gd_run_status *ret) {
    ret->event_bytes = gd_event_file_written(file);
    ret->event_bytes_waiting = gd_event_file_waiting(file);
    if (!gd_event_file_where(file, ret->event_path, sizeof(ret->event_path)))
        *ret->event_path = '\0';
    else if (!gd_text_is_clean(ret->event_path, strlen(ret->event_path)))
        gd_text_copy_printable(ret->event_path, sizeof(ret->event_path), ret->event_path);
}

static void tell_times(const struct gd_session *session, struct gd_run_status *ret) {
    uint64_t now_ms = uv_now(session->host->loop);
    const struct gd_silence *silence = &session->silence;
    ret->attached_seconds = (double)(now_ms - session->report.attached_ms) * 1e-3;
    ret->snapshots_per_second = gd_pace_per_second(&session->report.pace, now_ms);
    ret->seconds_since_snapshot = silence->begun ? (double)(now_ms - silence->last_ms) * 1e-3 : (double)NAN;
}

bool gd_session_sees_all(const struct gd_session *session) {
    return gd_admission_sees_all(gd_connection_fd(session->connection), session->peer.uid, session->host->admin_group);
}

uint64_t gd_session_run_number(const struct gd_session *session) {
    return gd_session_has_run(session) ? session->report.number : 0;
}

uid_t gd_session_uid(const struct gd_session *session) {
    return session->peer.uid;
}

void gd_session_describe(const struct gd_session *session, struct gd_run_status *ret) {
    const struct gd_run *run = session->run;
    const struct gd_run_report *report = &session->report;
    ret->number = report->number;
    ret->run = run->open_run->run;
    ret->uid = session->peer.uid;
    ret->pid = session->peer.pid;
    ret->groups = run->open_run->n_groups;
    ret->elements = run->open_run->elements;
    ret->step = report->step;
    ret->committed_sequence = report->sequence;
    ret->received_sequence = run->received_sequence;
    ret->snapshots = report->snapshots;
    ret->skipped = report->skipped;
    tell_times(session, ret);
    ret->memory_bytes = run->layout.total_bytes;
    tell_event_file(run->file, ret);
    ret->finishing = run->phase != GD_RUN_ACTIVE;
    ret->last_alert = report->last_alert;
    ret->alerts_on = report->alerts_on | (uint32_t)session->silence.silent << GD_ALERT_RULES;
}

void gd_session_add_up(const struct gd_session *session, struct gd_daemon_status *totals) {
    const struct gd_run *run = session->run;
    totals->connections += session->connection != NULL;
    if (!gd_session_has_run(session))
        return;
    totals->runs++;
    totals->queued += run->queued + (run->working != NULL) + (run->arriving && run->phase == GD_RUN_ACTIVE);
}

int gd_session_answer(struct gd_session *session, const struct gd_status *status) {
    return gd_reply_status(session->connection, status);
}
