#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"
#include "log.h"
#include "reply.h"
#include "session_state.h"

enum {
    HELLO_TIMEOUT_MS = 5000, // a trainer says Hello at once; what is silent holds a connection for nothing
    TURN_WORK_NS = 2000000,  // of all runs in a turn of the loop: a client that comes meanwhile does not feel it
    TURN_SHARE_NS = 1000000, // of each: one that floods leaves the others their part
};

const char *gd_session_run_name(const struct gd_session *session) {
    const char *name = session->run ? session->run->open_run->run : "";
    return *name ? name : ".";
}

bool gd_session_has_run(const struct gd_session *session) {
    return session->phase == SESSION_RUNNING || (session->phase == SESSION_OVER && session->run && session->run->file);
}

void gd_session_leave(struct gd_session *session) {
    bool unanswered = session->phase == SESSION_CHECKING; // so its trainer tries again, and goes on with the run
    session->phase = SESSION_OVER;
    if (session->connection)
        gd_connection_close(session->connection);
    if (session->run)
        gd_run_stop(session->run, unanswered && !session->trainer_gone);
}

void gd_session_refuse(struct gd_session *session, int result, struct gd_error *error) {
    if (result != -EBADMSG)
        gd_error_set(error, GD_ERROR_INTERNAL, "memory", "the daemon could not serve this: %s", strerror(-result));
    gd_log(GD_LOG_WARNING, "client pid %d uid %u, run %s: refused: %s", session->peer.pid, session->peer.uid,
           gd_session_run_name(session), error->text);

    session->host->counters->refused[error->code]++;
    gd_reply_error(session->connection, error);
    if (session->phase == SESSION_RUNNING)
        gd_memory_raise_notice(&session->run->memory, GD_NOTICE_ERROR);
    gd_session_leave(session);
}

static int charge_fds(void *context, struct gd_charge *charge, struct gd_error *ret_error) {
    struct gd_session *session = context;
    return gd_holdings_charge_fds(&session->holdings, GRADIENTD_FDS_MAX, charge, ret_error);
}

// There is a commit to tell of. A client that does not read is told of the last one when it does; meanwhile the socket
// keeps room for what must reach it, an Error or the Released that says that its file is whole.
static void on_room(void *context) {
    struct gd_session *session = context;
    gd_reply_released(session->connection, session->released_sequence);
}

// All that had arrived when the trainer died, or the daemon was told to stop, is taken.
static void on_drained(void *context) {
    struct gd_session *session = context;
    if (session->host->stopping && !session->trainer_gone)
        gd_run_stop(session->run, true);
    else
        gd_session_leave(session);
    gd_session_advance(session);
}

static void on_broken(void *context, const struct gd_error *error) {
    struct gd_session *session = context;
    struct gd_error copy = *error;
    gd_session_refuse(session, -EBADMSG, &copy);
    gd_session_advance(session);
}

static void on_closed(void *context) {
    struct gd_session *session = context;
    session->connection = NULL;
    if (session->phase == SESSION_RUNNING && session->run->phase == GD_RUN_ACTIVE)
        gd_log(GD_LOG_INFO, "run %s: the trainer is gone without closing it", gd_session_run_name(session));
    gd_session_leave(session);
    gd_session_advance(session);
}

int gd_session_new_consume(const struct gd_session_host *host, int fd, struct gd_holdings *holdings,
                           struct gd_session **ret_session) {
    static const struct gd_connection_handlers handlers = {
        gd_session_on_message, gd_session_on_payload, charge_fds, on_room, on_drained, on_broken, on_closed};
    struct gd_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->host = host;
    session->pidfd = -1;
    for (uint32_t i = 0; i < GD_WORKERS_MAX; i++) {
        session->parts[i].session = session;
        session->parts[i].index = i;
        session->parts[i].work.data = &session->parts[i];
    }
    int result = gd_connection_new_consume(host->loop, fd, &handlers, session, &session->connection);
    if (result < 0) {
        free(session);
        return result;
    }
    session->peer = gd_connection_peer(fd);
    session->holdings = *holdings;
    *holdings = (struct gd_holdings){0};
    session->limit_ms = HELLO_TIMEOUT_MS;
    session->deadline_ms = uv_now(host->loop) + session->limit_ms;
    *ret_session = session;
    return 0;
}

// On a pool thread.
static void work_part(uv_work_t *work) {
    struct part *part = work->data;
    struct gd_session *session = part->session;
    struct gd_thread_counters *counters = session->host->thread_counters;
    uint64_t began_ns = uv_hrtime();

    gd_progress_tell(&counters->progress);
    counters->working++;
    gd_run_work(session->run, part->index, session->n_parts);
    if (atomic_fetch_sub_explicit(&session->parts_undone, 1, memory_order_acq_rel) == 1)
        session->client_waits = gd_run_commit(session->run);
    part->worked_ns = uv_hrtime() - began_ns;
    gd_progress_tell(&counters->progress);
    counters->working--;
}

// A submission is committed: its client is told if it waits. Of the end Released tells when the file is whole.
static void finish_work(struct gd_session *session) {
    bool snapshot = session->run->working->kind == GD_SUBMISSION_SNAPSHOT;
    gd_session_count_commit(session);
    gd_run_finish(session->run, session->host->submissions);
    if (snapshot)
        gd_session_tell_alerts(session);
    if (session->run->state->ended)
        return;
    session->released_sequence = session->run->state->sequence;
    if (session->client_waits && session->connection)
        gd_connection_ask_room(session->connection);
}

static void on_part_done(uv_work_t *work, int status) {
    struct part *part = work->data;
    struct gd_session *session = part->session;
    (void)status;

    session->host->counters->analysis_ns += part->worked_ns;
    if (--session->parts_unreported > 0)
        return;
    finish_work(session);
    gd_session_advance(session);
}

// Whether the loop's thread has time for this client in this turn.
static bool has_time_here(struct gd_session *session) {
    struct gd_turn *turn = session->host->turn;
    uint64_t now_ns = uv_hrtime();

    session->work_began_ns = now_ns;
    if (turn->work_until_ns == 0)
        turn->work_until_ns = now_ns + TURN_WORK_NS;
    if (session->turn != turn->number) {
        session->turn = turn->number;
        session->work_until_ns = now_ns + TURN_SHARE_NS;
    }
    return now_ns < turn->work_until_ns && now_ns < session->work_until_ns;
}

// Does light work here and now. Returns false when there is none, or so much that other threads should share in it.
static bool work_here(struct gd_session *session) {
    struct gd_run *run = session->run;
    if (!gd_run_is_light(run) || !has_time_here(session))
        return false;
    gd_run_begin(run, 1);
    gd_run_work(run, 0, 1);
    session->client_waits = gd_run_commit(run);
    session->host->counters->analysis_ns += uv_hrtime() - session->work_began_ns;
    finish_work(session);
    return true;
}

// Answers a StatusRequest, in the next turn where this one has had its share of work: of many runs that takes half a
// millisecond, and a user may ask a thousand times at once.
static void answer_request(struct gd_session *session) {
    struct gd_error error;
    if (!has_time_here(session)) {
        session->host->notify(session->host->context);
        return;
    }
    session->phase = SESSION_OPEN;
    int result = session->host->answer_status(session->host->context, session, &session->request);
    if (result < 0)
        gd_session_refuse(session, result, &error);
}

static void begin_work(struct gd_session *session) {
    session->n_parts = gd_run_begin(session->run, session->host->workers);
    session->parts_unreported = session->n_parts;
    atomic_store_explicit(&session->parts_undone, session->n_parts, memory_order_relaxed);
    for (uint32_t i = 0; i < session->n_parts; i++)
        uv_queue_work(session->host->loop, &session->parts[i].work, work_part, on_part_done);
}

static void on_pidfd_closed(uv_handle_t *handle) {
    struct gd_session *session = handle->data;
    close(session->pidfd);
    session->pidfd = -1;
    gd_session_advance(session);
}

// On a pool thread: unmapping takes 0.3 s a gigabyte, which the loop has not got.
static void free_run(uv_work_t *work) {
    struct part *part = work->data;
    gd_run_free(part->session->run); // joins the writer thread, which may be notifying the host still
}

static void free_session(struct gd_session *session) {
    session->host->gone(session->host->context, session);
    gd_payload_deinit(&session->payload);
    gd_open_run_free(session->opening);
    free(session->table);
    gd_holdings_release(&session->holdings);
    free(session);
}

static void on_run_freed(uv_work_t *work, int status) {
    struct part *part = work->data;
    (void)status;
    free_session(part->session);
}

// Frees the session when no callback can come for it any more, which may be now: the last thing to call.
static void reap(struct gd_session *session) {
    struct gd_run *run = session->run;
    bool run_done =
        !run || run->phase == GD_RUN_LAID_OUT || (run->phase == GD_RUN_ENDED && gd_event_file_is_done(run->file));

    if (session->phase == SESSION_RUNNING && run && run_done) {
        gd_fault_reach(GD_FAULT_FILE_CLOSED);
        if (session->connection && gd_event_file_written(run->file) == run->appended_bytes)
            gd_reply_released(session->connection, run->state->sequence); // to whom waits until the file is whole
        gd_session_leave(session);
    }
    if (session->connection || session->phase != SESSION_OVER || !run_done || gd_inflater_is_busy(&session->inflater))
        return;
    if (session->pidfd >= 0) {
        if (!uv_is_closing((uv_handle_t *)&session->pidfd_poll))
            uv_close((uv_handle_t *)&session->pidfd_poll, on_pidfd_closed);
        return;
    }
    if (run && run->file)
        gd_session_log_unwritten_alerts(session);
    if (run && run->file)
        gd_log(GD_LOG_INFO, "run %s: ended after %llu snapshots, %llu skipped, %llu bytes written",
               gd_session_run_name(session), (unsigned long long)run->state->snapshots,
               (unsigned long long)run->state->skipped, (unsigned long long)gd_event_file_written(run->file));
    session->phase = SESSION_FREEING;
    if (!run) { // at once, so that who comes and goes holds no connections while it is done
        free_session(session);
        return;
    }
    gd_holdings_keep_memory(&session->holdings, run->memory.fd >= 0);
    uv_queue_work(session->host->loop, &session->parts[0].work, free_run, on_run_freed);
}

void gd_session_advance(struct gd_session *session) {
    if (session->phase == SESSION_FREEING)
        return;
    if (session->phase == SESSION_CHECKING)
        gd_session_finish_attach(session);
    if (session->phase == SESSION_ASKING)
        answer_request(session);
    bool paused = session->phase == SESSION_ASKING;
    if (session->run) {
        enum gd_run_next next;
        while ((next = gd_run_next(session->run)) == GD_RUN_BEGIN && work_here(session))
            continue;
        if (next == GD_RUN_BEGIN)
            begin_work(session);
        else if (next == GD_RUN_END)
            gd_run_end(session->run);
        gd_session_place_arriving(session);
        bool waits_for_slot = session->run->arriving && !session->payload.destination;
        paused = waits_for_slot || gd_run_is_full(session->run) || gd_inflater_is_busy(&session->inflater);
    }
    if (session->connection)
        gd_connection_set_paused(session->connection, paused);
    reap(session);
}

uint64_t gd_session_check_deadline(struct gd_session *session) {
    struct gd_error error;
    if (session->phase > SESSION_ATTACH)
        return gd_session_check_silence(session);
    uint64_t now_ms = uv_now(session->host->loop);
    if (now_ms < session->deadline_ms)
        return session->deadline_ms - now_ms;
    if (!session->overdue) { // after a standstill it may be in the socket: one round of the loop reads it
        session->overdue = true;
        return 1;
    }
    bool greeted = session->phase != SESSION_HELLO;
    uint64_t waited_ms = now_ms - session->deadline_ms + session->limit_ms;
    gd_session_refuse(session,
                      gd_error_set(&error, GD_ERROR_PROTOCOL, greeted ? "attach" : "hello",
                                   "%s has not come for %llu ms, the limit is %llu", greeted ? "Attach" : "hello",
                                   (unsigned long long)waited_ms, (unsigned long long)session->limit_ms),
                      &error);
    return UINT64_MAX;
}

void gd_session_stop(struct gd_session *session) {
    if (session->phase == SESSION_FREEING)
        return;
    if (session->phase == SESSION_RUNNING) {
        gd_connection_drain(session->connection);
    } else {
        if (session->run)
            gd_run_stop(session->run, true); // its trainer lives, and goes on with it elsewhere
        gd_session_leave(session);
    }
    gd_session_advance(session);
}

void gd_session_abandon(struct gd_session *session) {
    if (session->phase != SESSION_FREEING && session->run && session->run->file)
        gd_event_file_abandon(session->run->file);
}
