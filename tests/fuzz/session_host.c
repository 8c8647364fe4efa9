#include "session_host.h"

#include <assert.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "decode.h"
#include "log.h"
#include "session_state.h"
#include "status.h"

enum { SESSIONS_MAX = 64, WORKERS = 2, NS_PER_MS = 1000000 };

// After all that was sent is paid off.
static const uint64_t LATER_NS = UINT64_MAX / 2;

static uv_loop_t loop;
static uv_async_t progress;
static uv_prepare_t turn_begins;
static struct gd_turn turn;
static struct gd_arena arena;
static struct gd_submission_pool submissions;
static struct gd_quota *quota;
static struct gd_counters counters;
static struct gd_thread_counters thread_counters;
static struct gd_alert_ring *alerts;
static struct gd_session *sessions[SESSIONS_MAX];
static uint32_t n_sessions;
static bool works_on_pool;

void gd_log(enum gd_log_level level, const char *format, ...) {
    char line[1024];
    va_list arguments;
    (void)level;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
}

static void on_progress(uv_async_t *async) {
    (void)async;
    for (uint32_t i = n_sessions; i-- > 0;)
        if (i < n_sessions)
            gd_session_advance(sessions[i]);
}

static bool any_asks(void) {
    for (uint32_t i = 0; i < n_sessions; i++)
        if (sessions[i]->phase == SESSION_ASKING)
            return true;
    return false;
}

// Where all work goes to the pool, a turn has time only for a StatusRequest that waits for one that has.
static void on_turn(uv_prepare_t *prepare) {
    (void)prepare;
    turn = (struct gd_turn){.number = turn.number + 1, .work_until_ns = works_on_pool && !any_asks()};
}

static void notify(void *context) {
    (void)context;
    uv_async_send(&progress);
}

static struct gd_session *holder_of(void *context, const struct gd_memory_id *id) {
    (void)context;
    for (uint32_t i = 0; i < n_sessions; i++)
        if (gd_session_holds(sessions[i], id))
            return sessions[i];
    return NULL;
}

static void watch(void *context, uint64_t milliseconds) {
    (void)context;
    (void)milliseconds;
}

static void on_attached(void *context) {
    (void)context;
}

static void on_gone(void *context, struct gd_session *session) {
    (void)context;
    for (uint32_t i = 0; i < n_sessions; i++)
        if (sessions[i] == session) {
            sessions[i] = sessions[--n_sessions];
            return;
        }
    abort();
}

static int answer_status(void *context, struct gd_session *asker, const struct gd_status_request *request);

static struct gd_session_host host = {
    .loop = &loop,
    .arena = &arena,
    .submissions = &submissions,
    .kernels = &gd_kernels_scalar,
    .turn = &turn,
    .counters = &counters,
    .thread_counters = &thread_counters,
    .workers = WORKERS,
    .notify = notify,
    .holder_of = holder_of,
    .watch = watch,
    .answer_status = answer_status,
    .attached = on_attached,
    .gone = on_gone,
};

static int answer_status(void *context, struct gd_session *asker, const struct gd_status_request *request) {
    const struct gd_status_sources sources = {&host, quota, 1.7e9, sessions, n_sessions};
    (void)context;
    return gd_status_answer(&sources, asker, request);
}

void session_host_init(void) {
    const struct gd_quota_limits limits = {
        .most = {SESSIONS_MAX, SESSIONS_MAX, 4 * SESSIONS_MAX, UINT64_C(1) << 30},
        .messages_per_second = GD_QUOTA_MESSAGES_MAX,
    };
    setenv("UV_THREADPOOL_SIZE", "1", 1);
    signal(SIGPIPE, SIG_IGN);
    int failed = uv_loop_init(&loop) | uv_async_init(&loop, &progress, on_progress) |
                 uv_prepare_init(&loop, &turn_begins) | uv_prepare_start(&turn_begins, on_turn) |
                 gd_quota_new(&limits, &quota) | gd_arena_init(&arena, GD_DECODE_ARENA_BYTES);
    assert(!failed);
}

void session_host_begin(bool pooled) {
    assert(n_sessions == 0);
    works_on_pool = pooled;
    gd_alert_ring_free(alerts);
    int failed = gd_alert_ring_new(&alerts);
    assert(!failed);
    host.alerts = alerts;
    host.stopping = false;
    uv_update_time(&loop);
}

void session_host_serve(int fd) {
    struct gd_holdings holdings = {0};
    struct gd_error error;
    int result = gd_holdings_init(&holdings, quota, geteuid(), uv_now(&loop) * NS_PER_MS, &error);
    if (result == 0 && n_sessions < SESSIONS_MAX && !host.stopping)
        result = gd_session_new_consume(&host, fd, &holdings, &sessions[n_sessions]);
    else
        result = -1;
    if (result < 0) {
        gd_holdings_release(&holdings);
        close(fd);
        return;
    }
    n_sessions++;
}

void session_host_turn(void) {
    uv_run(&loop, UV_RUN_NOWAIT);
}

// Whether something of it is under way, on another thread or for the next turn. A run that has got all is waited for
// until it is ended.
static bool is_busy(struct gd_session *session) {
    const struct gd_run *run = session->run;
    if (session->phase == SESSION_ASKING || session->phase == SESSION_CHECKING || session->phase == SESSION_FREEING ||
        gd_inflater_is_busy(&session->inflater))
        return true;
    return run && (run->working || run->queue_head || run->phase > GD_RUN_ACTIVE);
}

static bool any_is_busy(void) {
    for (uint32_t i = 0; i < n_sessions; i++)
        if (is_busy(sessions[i]))
            return true;
    return false;
}

void session_host_settle(void) {
    session_host_turn();
    while (any_is_busy())
        uv_run(&loop, UV_RUN_ONCE);
    session_host_turn();
}

void session_host_stop(void) {
    host.stopping = true;
    for (uint32_t i = n_sessions; i-- > 0;)
        if (i < n_sessions)
            gd_session_stop(sessions[i]);
}

void session_host_end(void) {
    while (n_sessions > 0)
        uv_run(&loop, UV_RUN_ONCE);
    gd_submission_pool_deinit(&submissions);
    for (;;) { // descriptors that nobody wanted are closed on threads of their own
        gd_quota_sweep(quota, LATER_NS);
        if (gd_quota_accounts(quota) == 0)
            return;
        sched_yield();
    }
}
