#include <errno.h>
#include <stdlib.h>

#include "log.h"
#include "reply.h"
#include "session_state.h"

enum { NS_PER_MS = 1000000 };

int gd_session_expect(struct gd_session *session, enum session_phase phase, const char *name,
                      struct gd_error *ret_error) {
    if (session->phase == phase)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message", "%s came out of order", name);
}

// From now on the client has its time for what comes before Attached.
static void begin_set_up(struct gd_session *session) {
    session->limit_ms = session->host->attach_timeout_ms;
    session->deadline_ms = uv_now(session->host->loop) + session->limit_ms;
    session->overdue = false;
    session->host->watch(session->host->context, session->limit_ms);
}

static int handle_hello(struct gd_session *session, const struct gd_hello *hello, struct gd_error *ret_error) {
    int result = gd_session_expect(session, SESSION_HELLO, "Hello", ret_error);
    if (result < 0)
        return result;
    if (hello->protocol_version != GRADIENTD_PROTOCOL_VERSION)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "protocol_version",
                            "protocol_version is %u, this daemon speaks %d", hello->protocol_version,
                            GRADIENTD_PROTOCOL_VERSION);

    gd_reply_welcome(session->connection);
    session->phase = SESSION_OPEN;
    begin_set_up(session);
    return 0;
}

// A watcher lives as long as it asks.
static int handle_status_request(struct gd_session *session, const struct gd_status_request *request,
                                 struct gd_error *ret_error) {
    int result = gd_session_expect(session, SESSION_OPEN, "StatusRequest", ret_error);
    if (result == 0)
        result = gd_holdings_count_costly(&session->holdings, uv_now(session->host->loop) * NS_PER_MS, ret_error);
    if (result < 0)
        return result;
    begin_set_up(session);
    session->request = *request;
    session->phase = SESSION_ASKING;
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
    int result = gd_session_expect(session, SESSION_OPEN, "OpenRun", ret_error);
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

static int handle_submission_consume(struct gd_session *session, struct gd_submission *submission,
                                     struct gd_error *ret_error) {
    int result = gd_session_expect(session, SESSION_RUNNING, "StartVector, Snapshot, Scalars or CloseRun", ret_error);
    if (result < 0) {
        free(submission);
        return result;
    }
    bool closing = submission->kind == GD_SUBMISSION_CLOSE;
    bool failed = submission->failed;
    bool snapshot = submission->kind == GD_SUBMISSION_SNAPSHOT;
    int64_t step = submission->step;
    result = gd_run_submit_consume(session->run, submission, ret_error);
    if (result == 0 && closing)
        gd_log(GD_LOG_INFO, "run %s: closed by the trainer: %s", gd_session_run_name(session),
               failed ? "failure" : "success");
    if (result == 0 && snapshot)
        gd_session_hear_snapshot(session, step);
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
        return gd_session_attach(session, &decoded->attach, ret_error);
    case GD_CLIENT_SUBMISSION:
        return handle_submission_consume(session, decoded->submission, ret_error);
    case GD_CLIENT_STATUS_REQUEST:
        break;
    }
    return handle_status_request(session, &decoded->status_request, ret_error);
}

void gd_session_on_message(void *context, const struct gd_frame *frame) {
    struct gd_session *session = context;
    struct gd_decoded decoded;
    struct gd_error error;

    int result = gd_holdings_count_message(&session->holdings, uv_now(session->host->loop) * NS_PER_MS, &error);
    if (result == 0)
        result = gd_decode(frame, session->host->arena, session->host->submissions, &decoded, &error);
    if (result == 0)
        result = dispatch(session, &decoded, frame->payload_bytes, &error);
    if (result < 0)
        gd_session_refuse(session, result, &error);
    gd_session_advance(session);
}

// Gives the elements that are about to arrive a place, once there is one.
void gd_session_place_arriving(struct gd_session *session) {
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
        gd_session_refuse(session, result, &error);
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
            gd_session_refuse(session, result, error);
    }
    gd_session_advance(session);
}

void gd_session_on_payload(void *context, const uint8_t *data, size_t bytes) {
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
        gd_session_refuse(session, result, &error);
    gd_session_advance(session);
}
