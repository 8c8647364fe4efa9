#include <stdio.h>
#include <time.h>

#include "alert_text.h"
#include "log.h"
#include "reply.h"
#include "session_state.h"

// A client may never read: what it must not miss, an Error above all, needs the room that is left.
static void send_alert(struct gd_session *session, const struct gd_alert_message *alert) {
    if (session->connection && session->phase == SESSION_RUNNING && gd_reply_alert(session->connection, alert))
        gd_memory_raise_notice(&session->run->memory, GD_NOTICE_ALERT);
}

static void log_alert(const struct gd_session *session, const struct gd_alert_message *alert) {
    gd_log(alert->onset ? GD_LOG_WARNING : GD_LOG_INFO, "run %s: alert %s: %s", gd_session_run_name(session),
           alert->rule, alert->text);
}

struct gd_alert_message gd_session_alert_message(const struct gd_open_run *open_run, enum gd_alert_rule rule,
                                                 const struct gd_alert *alert, char text[static GD_ALERT_TEXT_BYTES]) {
    gd_alert_format(rule, alert, open_run, text);
    return (struct gd_alert_message){
        .rule = gd_alert_rule_name(rule),
        .step = alert->step,
        .onset = alert->onset,
        .text = text,
        .group = alert->group < open_run->n_groups ? open_run->groups[alert->group].name : NULL,
    };
}

// Keeps it for whoever asks for the last alerts of all runs.
static void keep_recent(struct gd_session *session, const struct gd_alert_message *alert) {
    struct gd_recent_alert *recent = gd_alert_ring_add(session->host->alerts);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    recent->run_number = session->report.number;
    recent->time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    recent->uid = session->peer.uid;
    recent->pid = session->peer.pid;
    recent->rule = alert->rule;
    recent->step = alert->step;
    recent->onset = alert->onset;
    snprintf(recent->text, sizeof(recent->text), "%s", alert->text);
    snprintf(recent->group, sizeof(recent->group), "%s", alert->group ? alert->group : "");
    snprintf(recent->run, sizeof(recent->run), "%s", session->run->open_run->run);
}

// Tells of each rule that had an onset or a clearing at the run's last committed snapshot, again or (`news`) not.
static void for_each_alert(struct gd_session *session, bool news) {
    const struct gd_run_state *state = session->run->state;
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++) {
        const struct gd_alert *last = &state->alerts.rules[rule].last;
        char text[GD_ALERT_TEXT_BYTES];
        if (!gd_alerts_turned(&state->alerts, rule, state->step))
            continue;
        struct gd_alert_message message = gd_session_alert_message(session->run->open_run, rule, last, text);
        session->report.alerts_on &= ~(UINT32_C(1) << rule);
        session->report.alerts_on |= last->onset << rule;
        if (news)
            gd_session_keep_alert(session, &message);
        if (news && gd_alerts_writes(&state->alerts, rule)) {
            keep_recent(session, &message);
            log_alert(session, &message);
        }
        send_alert(session, &message);
    }
}

void gd_session_tell_alerts(struct gd_session *session) {
    for_each_alert(session, true);
}

void gd_session_repeat_alerts(struct gd_session *session) {
    if (session->run->state->snapshots > 0)
        for_each_alert(session, false);
}

void gd_session_log_unwritten_alerts(const struct gd_session *session) {
    const struct gd_alert_state *alerts = &session->run->state->alerts;
    for (enum gd_alert_rule rule = 0; rule < GD_ALERT_RULES; rule++)
        if (!gd_alerts_writes(alerts, rule))
            gd_log(GD_LOG_WARNING, "run %s: alert %s: %u times in all, of which %d were written",
                   gd_session_run_name(session), gd_alert_rule_name(rule), alerts->rules[rule].count,
                   GD_ALERT_TEXTS_MAX);
}

// ---- Silence --------------------------------------------------------------------------------------------------------

static double silence_intervals(const struct gd_session *session) {
    return session->run->open_run->thresholds.silence_intervals;
}

static void tell_silence(struct gd_session *session, int64_t step, bool onset, const char *text) {
    const struct gd_alert_message message = {.rule = "silence", .step = step, .onset = onset, .text = text};
    gd_session_keep_alert(session, &message);
    keep_recent(session, &message);
    log_alert(session, &message);
    send_alert(session, &message);
}

void gd_session_hear_snapshot(struct gd_session *session, int64_t step) {
    struct gd_silence *silence = &session->silence;
    uint64_t now_ms = uv_now(session->host->loop), before_ms = silence->last_ms;
    char text[128];
    if (gd_silence_arrive(silence, now_ms, step)) {
        snprintf(text, sizeof(text), "Step %lld: over; it came %.3f s after the one before.", (long long)step,
                 (double)(now_ms - before_ms) * 1e-3);
        tell_silence(session, step, false, text);
    }
    if (session->silence_watched)
        return;
    uint64_t deadline_ms = gd_silence_deadline_ms(silence, silence_intervals(session));
    if (deadline_ms == UINT64_MAX)
        return;
    session->silence_watched = true;
    session->silence_overdue = false;
    session->host->watch(session->host->context, deadline_ms - now_ms);
}

uint64_t gd_session_check_silence(struct gd_session *session) {
    struct gd_silence *silence = &session->silence;
    uint64_t now_ms = uv_now(session->host->loop);
    char text[160];
    bool listens = session->phase == SESSION_RUNNING && session->run->phase == GD_RUN_ACTIVE;
    uint64_t deadline_ms = listens ? gd_silence_deadline_ms(silence, silence_intervals(session)) : UINT64_MAX;
    session->silence_watched = deadline_ms < UINT64_MAX;
    if (deadline_ms == UINT64_MAX)
        return UINT64_MAX;
    if (now_ms < deadline_ms) {
        session->silence_overdue = false;
        return deadline_ms - now_ms;
    }
    if (session->run->working || session->run->queued > 0 || session->run->arriving) // it is the daemon that is late
        return GD_SILENCE_MS_MIN;
    if (!session->silence_overdue) { // after a standstill it may be in the socket: one round of the loop reads it
        session->silence_overdue = true;
        return 1;
    }
    silence->silent = true;
    session->silence_watched = session->silence_overdue = false;
    snprintf(text, sizeof(text),
             "No snapshot has come for %.3f s since step %lld; %g median intervals are %.3f s, the least is %.3f s.",
             (double)(now_ms - silence->last_ms) * 1e-3, (long long)silence->last_step, silence_intervals(session),
             silence_intervals(session) * (double)gd_silence_median_ms(silence) * 1e-3, GD_SILENCE_MS_MIN * 1e-3);
    tell_silence(session, silence->last_step, true, text);
    return UINT64_MAX;
}
