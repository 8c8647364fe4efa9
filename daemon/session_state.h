// The inside of a session, for the files that make one up: session.c (its life and its run's work), session_messages.c
// (the order of messages) and session_attach.c.
#pragma once

#include <stdatomic.h>
#include <sys/socket.h>

#include "connection.h"
#include "decode.h"
#include "diagnostics/silence.h"
#include "inflater.h"
#include "pace.h"
#include "payload.h"
#include "run.h"
#include "session.h"
#include "status_reply.h"

enum session_phase {
    SESSION_HELLO,    // waits for Hello
    SESSION_OPEN,     // waits for OpenRun or a StatusRequest
    SESSION_ASKING,   // waits for the answer to a StatusRequest
    SESSION_ATTACH,   // waits for Attach
    SESSION_CHECKING, // waits for the writer thread to have checked or created the event file
    SESSION_RUNNING,  // takes Snapshot, Scalars, CloseRun
    SESSION_OVER,     // hears nothing more; its run may still be finishing
    SESSION_FREEING,  // nothing of it may be touched
};

struct part {
    uv_work_t work;
    struct gd_session *session;
    uint32_t index;
    uint64_t worked_ns;
};

// What Status tells of a run. What belongs to the workers while they work is copied here when they do not.
struct gd_run_report {
    uint64_t number; // of the attachment, counted from 1; 0: it is not attached
    uint64_t attached_ms;
    int64_t step; // of the last committed snapshot, -1: none yet
    uint64_t sequence;
    uint64_t snapshots;
    uint64_t skipped;
    struct gd_pace pace;                 // of the snapshots
    uint32_t alerts_on;                  // bit per enum gd_alert_rule
    struct gd_alert_message last_alert;  // rule NULL: none; its text is ...
    char last_text[GD_ALERT_TEXT_BYTES]; // ... this
};

struct gd_session {
    const struct gd_session_host *host;
    enum session_phase phase;
    struct gd_connection *connection; // NULL once closed
    struct ucred peer;
    struct gd_holdings holdings; // what all of this is charged to
    uint64_t deadline_ms;        // of Hello, then of Attach; on the loop's clock
    uint64_t limit_ms;           // how long it had until then: a reload changes that of others
    bool overdue;                // it was seen to pass
    uv_poll_t pidfd_poll;        // tells of the trainer's death even while a forked child holds its socket
    int pidfd;                   // -1: none
    bool trainer_gone;           // the pidfd has told
    struct gd_run *run;          // owned, NULL before OpenRun

    struct gd_memory_id memory_id; // of the run's memfd; inode 0: none

    struct gd_open_run *opening; // owned: an OpenRun whose group table is on its way ...
    uint8_t *table;              // ... to here, owned
    struct gd_payload payload;   // what is on its way; without a destination, none or none yet
    struct gd_inflater inflater; // of a deflated one's pieces

    struct gd_silence silence;
    bool silence_watched; // the host looks at its deadline in time
    bool silence_overdue; // ... which was seen to pass

    struct gd_run_report report;
    struct gd_status_request request; // of SESSION_ASKING

    struct part parts[GD_WORKERS_MAX];
    uint32_t n_parts;
    uint32_t parts_unreported;     // of those, not yet back on the loop thread
    _Atomic uint32_t parts_undone; // of those, still to be worked on
    bool client_waits;
    uint64_t turn;              // the last in which work was done on the loop's thread ...
    uint64_t work_until_ns;     // ... and until when this run had its share of it
    uint64_t work_began_ns;     // the last piece of it
    uint64_t released_sequence; // what Released says next: the state's own belongs to the workers meanwhile
};

// ---- session.c

// The run's name, for the log.
const char *gd_session_run_name(const struct gd_session *session);

// Ends the protocol for this client; its run, if any, is finished as after the trainer's death, or left to be gone on
// with where Attach was not answered.
void gd_session_leave(struct gd_session *session);

// Answers a fault, *error where `result` is -EBADMSG, and leaves.
void gd_session_refuse(struct gd_session *session, int result, struct gd_error *error);

// ---- session_messages.c

// What connection.h hands over.
void gd_session_on_message(void *context, const struct gd_frame *frame);
void gd_session_on_payload(void *context, const uint8_t *data, size_t bytes);

// Gives the elements that are about to arrive a place, once there is one.
void gd_session_place_arriving(struct gd_session *session);

// Returns 0 in this phase, else -EBADMSG with *ret_error set: the message called `name` came out of order.
__attribute__((warn_unused_result)) int gd_session_expect(struct gd_session *session, enum session_phase phase,
                                                          const char *name, struct gd_error *ret_error);

// ---- session_alerts.c

// A snapshot is committed: tells of each rule that had an onset or a clearing by it, in the log and to the trainer.
void gd_session_tell_alerts(struct gd_session *session);

// A run was gone on with: tells the trainer of those of the last snapshot once more, as the daemon before may have died
// ahead of it.
void gd_session_repeat_alerts(struct gd_session *session);

// At the end of a run, those that were too many.
void gd_session_log_unwritten_alerts(const struct gd_session *session);

// A snapshot of that step has come.
void gd_session_hear_snapshot(struct gd_session *session, int64_t step);

// Tells of a run that has been silent for too long. Returns the milliseconds that it has left, UINT64_MAX: there is no
// deadline.
uint64_t gd_session_check_silence(struct gd_session *session);

// What is said of a rule's onset or clearing. `text` is what the message's points to.
struct gd_alert_message gd_session_alert_message(const struct gd_open_run *open_run, enum gd_alert_rule rule,
                                                 const struct gd_alert *alert, char text[static GD_ALERT_TEXT_BYTES]);

// ---- session_status.c

// Its run is attached: gives it a number.
void gd_session_begin_report(struct gd_session *session);

// A submission is committed, and not yet done with; the workers are.
void gd_session_count_commit(struct gd_session *session);

// The run's last alert is this one.
void gd_session_keep_alert(struct gd_session *session, const struct gd_alert_message *alert);

// Its run's number, 0: it has none that Status tells of.
uint64_t gd_session_run_number(const struct gd_session *session);

// Of a session that has a number. What *ret borrows is valid until the loop goes on.
void gd_session_describe(const struct gd_session *session, struct gd_run_status *ret);

uid_t gd_session_uid(const struct gd_session *session);

// Whether its client may see what concerns other users.
bool gd_session_sees_all(const struct gd_session *session);

__attribute__((warn_unused_result)) int gd_session_answer(struct gd_session *session, const struct gd_status *status);

// ---- session_attach.c

__attribute__((warn_unused_result)) int gd_session_attach(struct gd_session *session, const struct gd_attach *attach,
                                                          struct gd_error *ret_error);

// Answers Attach once the writer thread has spoken about the event file.
void gd_session_finish_attach(struct gd_session *session);
