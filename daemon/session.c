#include "session.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connection.h"
#include "decode.h"
#include "foreign_fd.h"
#include "inflater.h"
#include "log.h"
#include "payload.h"
#include "reply.h"
#include "run.h"

enum session_phase {
    SESSION_HELLO,    // waits for Hello
    SESSION_OPEN,     // waits for OpenRun
    SESSION_ATTACH,   // waits for Attach
    SESSION_CHECKING, // waits for the writer thread to have checked or created the event file
    SESSION_RUNNING,  // takes Snapshot, Scalars, CloseRun
    SESSION_OVER,     // hears nothing more; its run may still be finishing
    SESSION_FREEING,  // nothing of it may be touched
};

enum {
    HELLO_TIMEOUT_MS = 5000, // a trainer says Hello at once; what is silent holds a connection for nothing
    NS_PER_MS = 1000000,
};

struct part {
    uv_work_t work;
    struct gd_session *session;
    uint32_t index;
};

struct gd_session {
    const struct gd_session_host *host;
    enum session_phase phase;
    struct gd_connection *connection; // NULL once closed
    struct ucred peer;
    struct gd_holdings holdings; // what all of this is charged to
    uint64_t hello_deadline_ms;  // on the loop's clock
    bool hello_overdue;          // the deadline was seen to pass
    uv_poll_t pidfd_poll;        // tells of the trainer's death even while a forked child holds its socket
    int pidfd;                   // -1: none
    bool trainer_gone;           // the pidfd has told
    struct gd_run *run;          // owned, NULL before OpenRun

    struct gd_memory_id memory_id; // of the run's memfd; inode 0: none

    struct gd_open_run *opening; // owned: an OpenRun whose group table is on its way ...
    uint8_t *table;              // ... to here, owned
    struct gd_payload payload;   // what is on its way; without a destination, none or none yet
    struct gd_inflater inflater; // of a deflated one's pieces

    struct part parts[GD_WORKERS_MAX];
    uint32_t n_parts;
    uint32_t parts_unreported;     // of those, not yet back on the loop thread
    _Atomic uint32_t parts_undone; // of those, still to be worked on
    bool client_waits;
    uint64_t released_sequence; // what Released says next: the state's own belongs to the workers meanwhile
};

static const char *run_name(const struct gd_session *session) {
    const char *name = session->run ? session->run->open_run->run : "";
    return *name ? name : ".";
}

// Ends the protocol for this client; its run, if any, is finished as after the trainer's death.
static void leave(struct gd_session *session) {
    session->phase = SESSION_OVER;
    if (session->connection)
        gd_connection_close(session->connection);
    if (session->run)
        gd_run_stop(session->run, false);
}

static void refuse(struct gd_session *session, int result, struct gd_error *error) {
    if (result != -EBADMSG)
        gd_error_set(error, GD_ERROR_INTERNAL, "memory", "the daemon could not serve this: %s", strerror(-result));
    gd_log(GD_LOG_WARNING, "client pid %d uid %u, run %s: refused: %s", session->peer.pid, session->peer.uid,
           run_name(session), error->text);

    gd_reply_error(session->connection, error);
    if (session->phase == SESSION_RUNNING)
        gd_memory_raise_notice(&session->run->memory);
    leave(session);
}

static int expect(struct gd_session *session, enum session_phase phase, const char *name, struct gd_error *ret_error) {
    if (session->phase == phase)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message", "%s came out of order", name);
}

static int handle_hello(struct gd_session *session, const struct gd_hello *hello, struct gd_error *ret_error) {
    int result = expect(session, SESSION_HELLO, "Hello", ret_error);
    if (result < 0)
        return result;
    if (hello->protocol_version != GRADIENTD_PROTOCOL_VERSION)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "protocol_version",
                            "protocol_version is %u, this daemon speaks %d", hello->protocol_version,
                            GRADIENTD_PROTOCOL_VERSION);

    gd_reply_welcome(session->connection);
    session->phase = SESSION_OPEN;
    return 0;
}

// The group table is all there.
static int open_run(struct gd_session *session, uint64_t table_bytes, struct gd_error *ret_error) {
    int result = gd_open_run_read_table(session->opening, session->table, table_bytes, ret_error);
    free(session->table);
    session->table = NULL;
    if (result == 0)
        result = gd_holdings_charge_run(&session->holdings, session->opening, ret_error);
    if (result == 0)
        result = gd_run_new_consume(session->opening, &session->run);
    if (result < 0)
        return result;
    session->opening = NULL;
    gd_reply_layout(session->connection, &session->run->layout);
    session->phase = SESSION_ATTACH;
    return 0;
}

static int handle_open_run_consume(struct gd_session *session, struct gd_open_run *opening, uint32_t table_bytes,
                                   struct gd_error *ret_error) {
    int result = expect(session, SESSION_OPEN, "OpenRun", ret_error);
    if (result < 0) {
        gd_open_run_free(opening);
        return result;
    }
    session->opening = opening;
    result = gd_holdings_charge_table(&session->holdings, opening, table_bytes, ret_error);
    if (result < 0)
        return result;
    session->table = malloc(table_bytes + 1); // 1: malloc(0) may fail
    if (!session->table)
        return -ENOMEM;
    if (table_bytes == 0)
        return open_run(session, 0, ret_error);
    return gd_payload_init(&session->payload, session->table, table_bytes, table_bytes, false, ret_error);
}

static void on_trainer_exit(uv_poll_t *poll, int status, int events) {
    struct gd_session *session = poll->data;
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    session->trainer_gone = true;
    if (session->connection)
        gd_connection_drain(session->connection);
}

// Without a pidfd, or where the kernel cannot poll it, the socket's end alone tells.
static void watch_pidfd_consume(struct gd_session *session, int pidfd) {
    if (pidfd < 0)
        return;
    if (uv_poll_init(session->host->loop, &session->pidfd_poll, pidfd) < 0) {
        close(pidfd);
        return;
    }
    session->pidfd = pidfd;
    session->pidfd_poll.data = session;
    uv_poll_start(&session->pidfd_poll, UV_READABLE, on_trainer_exit);
}

bool gd_session_has_run(const struct gd_session *session) {
    return session->phase == SESSION_RUNNING || (session->phase == SESSION_OVER && session->run && session->run->file);
}

bool gd_session_holds(const struct gd_session *session, const struct gd_memory_id *id) {
    return session->memory_id.inode == id->inode && session->memory_id.device == id->device;
}

// What came with an Attach; -1: nothing.
struct attach_fds {
    int memory;
    int event_file;
    int pidfd;
};

static void close_attach_fds(const struct attach_fds *fds, struct gd_charge *charge) {
    gd_foreign_fd_close(fds->memory, charge);
    gd_foreign_fd_close(fds->event_file, charge);
    gd_foreign_fd_close(fds->pidfd, charge);
}

static int steal_attach_fds(struct gd_session *session, const struct gd_attach *attach, struct attach_fds *fds,
                            struct gd_error *ret_error) {
    struct gd_charge *charge = &session->holdings.fds;
    fds->memory = attach->memory ? gd_connection_steal_fd(session->connection, charge) : -1;
    fds->event_file = attach->event_file ? gd_connection_steal_fd(session->connection, charge) : -1;
    fds->pidfd = attach->pidfd ? gd_connection_steal_fd(session->connection, charge) : -1;
    if (attach->memory != (fds->memory >= 0) || attach->event_file != (fds->event_file >= 0) ||
        attach->pidfd != (fds->pidfd >= 0))
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "fds", "Attach declares more descriptors than came");
    if (attach->pidfd && !gd_foreign_fd_is_pidfd(fds->pidfd))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "pidfd", "pidfd is not a descriptor of a process");
    return 0;
}

// Refuses memory that a run of this daemon holds. Closing its descriptor drops the holder's lock, as POSIX locks do, so
// the lock is taken again at once.
static int check_holder(struct gd_session *session, struct attach_fds *fds, struct gd_error *ret_error) {
    struct gd_error error;
    struct gd_memory_id id;
    int result = gd_memory_identify(fds->memory, &id, ret_error);
    if (result < 0)
        return result;
    struct gd_session *holder = session->host->holder_of(session->host->context, &id);
    if (!holder) {
        session->memory_id = id;
        return 0;
    }
    close(fds->memory);
    fds->memory = -1;
    if (holder->phase != SESSION_FREEING && gd_memory_relock(&holder->run->memory, &error) < 0)
        gd_log(GD_LOG_ERROR, "run %s: %s", run_name(holder), error.text);
    return gd_error_set(ret_error, GD_ERROR_OWNED, "memory", "memory is held by another run of this daemon");
}

static int handle_attach(struct gd_session *session, const struct gd_attach *attach, struct gd_error *ret_error) {
    struct attach_fds fds;
    int result = expect(session, SESSION_ATTACH, "Attach", ret_error);
    if (result < 0)
        return result;
    result = steal_attach_fds(session, attach, &fds, ret_error);
    if (result == 0 && !attach->event_file) // the daemon opens one itself
        result = gd_holdings_charge_fds(&session->holdings, 1, &session->holdings.fds, ret_error);
    if (result == 0 && attach->memory)
        result = check_holder(session, &fds, ret_error);
    if (result < 0) {
        close_attach_fds(&fds, &session->holdings.fds);
        return result;
    }
    struct gd_run_attachment attachment = {
        .memory_fd = fds.memory,
        .event_fd = fds.event_file,
        .fds = &session->holdings.fds,
        .uid = session->peer.uid,
        .pid = session->peer.pid,
        .state_directory = session->host->state_directory,
        .kernels = session->host->kernels,
        .notify = session->host->notify,
        .notify_context = session->host->context,
    };
    result = gd_run_attach(session->run, &attachment, ret_error);
    if (result < 0) {
        if (fds.pidfd >= 0)
            close(fds.pidfd);
        return result;
    }
    watch_pidfd_consume(session, fds.pidfd);
    session->phase = SESSION_CHECKING;
    return 0;
}

// The writer thread has spoken about the event file.
static void finish_attach(struct gd_session *session) {
    struct gd_error error;
    int accepted = gd_event_file_is_accepted(session->run->file, &error);
    if (accepted < 0)
        refuse(session, accepted, &error);
    if (accepted <= 0)
        return;
    gd_run_keep_event_name(session->run);
    gd_reply_attached(session->connection, session->run->state->sequence, gd_event_file_written(session->run->file),
                      gd_event_file_path(session->run->file));
    session->phase = SESSION_RUNNING;
    session->host->attached(session->host->context);
    gd_log(GD_LOG_INFO, "run %s: attached by pid %d uid %u: %u groups, %llu elements, %u lags, %llu bytes shared",
           run_name(session), session->peer.pid, session->peer.uid, session->run->open_run->n_groups,
           (unsigned long long)session->run->open_run->elements, session->run->open_run->max_lag,
           (unsigned long long)session->run->layout.total_bytes);
}

static int handle_submission_consume(struct gd_session *session, struct gd_submission *submission,
                                     struct gd_error *ret_error) {
    int result = expect(session, SESSION_RUNNING, "StartVector, Snapshot, Scalars or CloseRun", ret_error);
    if (result < 0) {
        free(submission);
        return result;
    }
    bool closing = submission->kind == GD_SUBMISSION_CLOSE;
    bool failed = submission->failed;
    result = gd_run_submit_consume(session->run, submission, ret_error);
    if (result == 0 && closing)
        gd_log(GD_LOG_INFO, "run %s: closed by the trainer: %s", run_name(session), failed ? "failure" : "success");
    return result;
}

static int dispatch(struct gd_session *session, struct gd_decoded *decoded, uint32_t payload_bytes,
                    struct gd_error *ret_error) {
    switch (decoded->kind) {
    case GD_CLIENT_HELLO:
        return handle_hello(session, &decoded->hello, ret_error);
    case GD_CLIENT_OPEN_RUN:
        return handle_open_run_consume(session, decoded->open_run, payload_bytes, ret_error);
    case GD_CLIENT_ATTACH:
        return handle_attach(session, &decoded->attach, ret_error);
    case GD_CLIENT_SUBMISSION:
        return handle_submission_consume(session, decoded->submission, ret_error);
    case GD_CLIENT_STATUS_REQUEST:
        break;
    }
    return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "message", "StatusRequest is not supported");
}

static void on_message(void *context, const struct gd_frame *frame) {
    struct gd_session *session = context;
    struct gd_decoded decoded;
    struct gd_error error;

    int result = gd_holdings_count_message(&session->holdings, uv_now(session->host->loop) * NS_PER_MS, &error);
    if (result == 0)
        result = gd_decode(frame, session->host->arena, &decoded, &error);
    if (result == 0)
        result = dispatch(session, &decoded, frame->payload_bytes, &error);
    if (result < 0)
        refuse(session, result, &error);
    gd_session_advance(session);
}

// Gives the elements that are about to arrive a place, once there is one.
static void place_arriving(struct gd_session *session) {
    struct gd_submission *arriving = session->run->arriving;
    struct gd_error error;
    uint64_t bytes;

    if (!arriving || session->payload.destination || !session->connection)
        return;
    uint8_t *elements = gd_run_arriving_elements(session->run, &bytes);
    if (!elements)
        return;
    int result = gd_payload_init(&session->payload, elements, bytes, arriving->inline_bytes,
                                 arriving->delivery == GD_INLINE_DEFLATED, &error);
    if (result < 0)
        refuse(session, result, &error);
}

static int finish_payload(struct gd_session *session, struct gd_error *ret_error) {
    uint64_t bytes = session->payload.destination_bytes;
    gd_payload_deinit(&session->payload);
    if (session->opening)
        return open_run(session, bytes, ret_error);
    gd_run_queue_arrived(session->run);
    return 0;
}

// A piece of a payload was taken, which `result` and `error` say.
static void on_piece_taken(void *context, int result, struct gd_error *error) {
    struct gd_session *session = context;
    if (session->connection && session->phase < SESSION_OVER) { // it may have ended meanwhile
        if (result == 0 && session->payload.left_bytes == 0)
            result = finish_payload(session, error);
        if (result < 0)
            refuse(session, result, error);
    }
    gd_session_advance(session);
}

static void on_payload(void *context, const uint8_t *data, size_t bytes) {
    struct gd_session *session = context;
    struct gd_error error;
    int result;

    if (!session->payload.deflated) {
        result = gd_payload_take(&session->payload, data, bytes, &error);
        on_piece_taken(session, result, &error);
        return;
    }
    result = gd_inflater_start(&session->inflater, session->host->loop, &session->payload, data, bytes, on_piece_taken,
                               session);
    if (result < 0)
        refuse(session, result, &error);
    gd_session_advance(session);
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
        leave(session);
    gd_session_advance(session);
}

static void on_broken(void *context, const struct gd_error *error) {
    struct gd_session *session = context;
    struct gd_error copy = *error;
    refuse(session, -EBADMSG, &copy);
    gd_session_advance(session);
}

static void on_closed(void *context) {
    struct gd_session *session = context;
    session->connection = NULL;
    if (session->phase == SESSION_RUNNING && session->run->phase == GD_RUN_ACTIVE)
        gd_log(GD_LOG_INFO, "run %s: the trainer is gone without closing it", run_name(session));
    leave(session);
    gd_session_advance(session);
}

int gd_session_new_consume(const struct gd_session_host *host, int fd, struct gd_holdings *holdings,
                           struct gd_session **ret_session) {
    static const struct gd_connection_handlers handlers = {on_message, on_payload, charge_fds, on_room,
                                                           on_drained, on_broken,  on_closed};
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
    session->hello_deadline_ms = uv_now(host->loop) + HELLO_TIMEOUT_MS;
    *ret_session = session;
    return 0;
}

// On a pool thread.
static void work_part(uv_work_t *work) {
    struct part *part = work->data;
    struct gd_session *session = part->session;

    gd_run_work(session->run, part->index, session->n_parts);
    if (atomic_fetch_sub_explicit(&session->parts_undone, 1, memory_order_acq_rel) == 1)
        session->client_waits = gd_run_commit(session->run);
}

static void on_part_done(uv_work_t *work, int status) {
    struct part *part = work->data;
    struct gd_session *session = part->session;
    (void)status;

    if (--session->parts_unreported > 0)
        return;
    gd_run_finish(session->run);
    if (!session->run->state->ended) { // of the end Released tells when the file is whole
        session->released_sequence = session->run->state->sequence;
        if (session->client_waits && session->connection)
            gd_connection_ask_room(session->connection);
    }
    gd_session_advance(session);
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

static void on_run_freed(uv_work_t *work, int status) {
    struct part *part = work->data;
    struct gd_session *session = part->session;
    (void)status;
    session->host->gone(session->host->context, session);
    gd_payload_deinit(&session->payload);
    gd_open_run_free(session->opening);
    free(session->table);
    gd_holdings_release(&session->holdings);
    free(session);
}

// Frees the session when no callback can come for it any more.
static void reap(struct gd_session *session) {
    struct gd_run *run = session->run;
    bool run_done =
        !run || run->phase == GD_RUN_LAID_OUT || (run->phase == GD_RUN_ENDED && gd_event_file_is_done(run->file));

    if (session->phase == SESSION_RUNNING && run && run_done) {
        if (session->connection && gd_event_file_written(run->file) == run->appended_bytes)
            gd_reply_released(session->connection, run->state->sequence); // to whom waits until the file is whole
        leave(session);
    }
    if (session->connection || session->phase != SESSION_OVER || !run_done || gd_inflater_is_busy(&session->inflater))
        return;
    if (session->pidfd >= 0) {
        if (!uv_is_closing((uv_handle_t *)&session->pidfd_poll))
            uv_close((uv_handle_t *)&session->pidfd_poll, on_pidfd_closed);
        return;
    }
    if (run && run->file)
        gd_log(GD_LOG_INFO, "run %s: ended after %llu snapshots, %llu skipped, %llu bytes written", run_name(session),
               (unsigned long long)run->state->snapshots, (unsigned long long)run->state->skipped,
               (unsigned long long)gd_event_file_written(run->file));
    session->phase = SESSION_FREEING;
    uv_queue_work(session->host->loop, &session->parts[0].work, free_run, on_run_freed);
}

void gd_session_advance(struct gd_session *session) {
    if (session->phase == SESSION_FREEING)
        return;
    if (session->phase == SESSION_CHECKING)
        finish_attach(session);
    if (session->run) {
        enum gd_run_next next = gd_run_next(session->run);
        if (next == GD_RUN_BEGIN)
            begin_work(session);
        else if (next == GD_RUN_END)
            gd_run_end(session->run);
        place_arriving(session);
        bool waits_for_slot = session->run->arriving && !session->payload.destination;
        bool paused = waits_for_slot || gd_run_is_full(session->run) || gd_inflater_is_busy(&session->inflater);
        if (session->connection)
            gd_connection_set_paused(session->connection, paused);
    }
    reap(session);
}

uint64_t gd_session_check_hello(struct gd_session *session) {
    struct gd_error error;
    if (session->phase != SESSION_HELLO)
        return UINT64_MAX;
    uint64_t now_ms = uv_now(session->host->loop), connected_ms = session->hello_deadline_ms - HELLO_TIMEOUT_MS;
    if (now_ms < session->hello_deadline_ms)
        return session->hello_deadline_ms - now_ms;
    if (!session->hello_overdue) { // after a standstill it may be in the socket: one round of the loop reads it
        session->hello_overdue = true;
        return 1;
    }
    refuse(session,
           gd_error_set(&error, GD_ERROR_PROTOCOL, "hello", "hello has not come for %llu ms, the limit is %d",
                        (unsigned long long)now_ms - connected_ms, HELLO_TIMEOUT_MS),
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
        leave(session);
    }
    gd_session_advance(session);
}

void gd_session_abandon(struct gd_session *session) {
    if (session->phase != SESSION_FREEING && session->run && session->run->file)
        gd_event_file_abandon(session->run->file);
}
