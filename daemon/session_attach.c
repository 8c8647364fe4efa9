#include <unistd.h>

#include "fault.h"
#include "foreign_fd.h"
#include "log.h"
#include "reply.h"
#include "session_state.h"

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
        return gd_error_set(
            ret_error, GD_ERROR_PROTOCOL, "fds",
            "Attach declares more descriptors than came; a forwarded socket passes none: there, send elements "
            "inline and leave out the logdir");
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
        gd_log(GD_LOG_ERROR, "run %s: %s", gd_session_run_name(holder), error.text);
    return gd_error_set(ret_error, GD_ERROR_OWNED, "memory", "memory is held by another run of this daemon");
}

int gd_session_attach(struct gd_session *session, const struct gd_attach *attach, struct gd_error *ret_error) {
    struct attach_fds fds;
    int result = gd_session_expect(session, SESSION_ATTACH, "Attach", ret_error);
    if (result < 0)
        return result;
    gd_fault_set_attaching(1);
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
        .admin_group = session->host->admin_group,
        .kernels = session->host->kernels,
        .counters = session->host->thread_counters,
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
void gd_session_finish_attach(struct gd_session *session) {
    struct gd_error error;
    int accepted = gd_event_file_is_accepted(session->run->file, &error);
    if (accepted < 0)
        gd_session_refuse(session, accepted, &error);
    if (accepted <= 0)
        return;
    gd_run_keep_event_name(session->run);
    gd_fault_reach(GD_FAULT_ATTACH_UNANSWERED);
    gd_reply_attached(session->connection, session->run->state->sequence, gd_event_file_written(session->run->file),
                      gd_event_file_path(session->run->file));
    gd_fault_set_attaching(0);
    gd_fault_reach(GD_FAULT_ATTACH_ANSWERED);
    session->phase = SESSION_RUNNING;
    gd_session_begin_report(session);
    session->host->attached(session->host->context);
    gd_log(GD_LOG_INFO, "run %s: attached by pid %d uid %u: %u groups, %llu elements, %u lags, %llu bytes shared",
           gd_session_run_name(session), session->peer.pid, session->peer.uid, session->run->open_run->n_groups,
           (unsigned long long)session->run->open_run->elements, session->run->open_run->max_lag,
           (unsigned long long)session->run->layout.total_bytes);
    gd_session_repeat_alerts(session);
}
