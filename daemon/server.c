#include "server.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "acceptor.h"
#include "connection.h"
#include "decode.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "reloader.h"
#include "reply.h"
#include "session.h"
#include "state_directory.h"
#include "status.h"
#include "supervision.h"

enum {
    STOP_TIMEOUT_MS = 10000, // how long a stopping daemon waits for file systems that do not answer
    ABANDON_TIMEOUT_MS = 1000,
    SESSIONS_INITIAL = 16,
    LARGE_BLOCK_BYTES = 128 << 10, // glibc's own first threshold
    NS_PER_MS = 1000000,
};

struct server {
    struct gd_server_options *options;
    uv_loop_t loop;
    int stop_signals_fd;
    uv_poll_t stop_signals;
    uv_async_t progress; // a writer thread got on
    uv_prepare_t turn_begins;
    struct gd_turn turn;
    uv_timer_t stop_timer;
    uv_timer_t deadline_timer; // runs while a client has a deadline, its own or that of its silence
    struct gd_reloader reloader;
    struct gd_supervision supervision;
    struct gd_metrics metrics;
    struct gd_metrics_file *metrics_file; // the metrics' once there is a loop; NULL: none
    struct gd_acceptor acceptor;
    struct gd_arena arena;
    struct gd_submission_pool submissions;
    char *default_state_directory; // owned, NULL: none
    struct gd_quota *quota;
    struct gd_counters counters;
    struct gd_thread_counters thread_counters;
    struct gd_alert_ring *alerts;
    double started; // seconds since the epoch
    struct gd_session_host host;
    struct gd_session **sessions;
    uint32_t n_sessions, sessions_capacity;
    bool stopping;
    bool gave_up; // on writing what was submitted
};

static void close_handles(struct server *server) {
    uv_close((uv_handle_t *)&server->stop_signals, NULL);
    uv_close((uv_handle_t *)&server->progress, NULL);
    uv_close((uv_handle_t *)&server->turn_begins, NULL);
    uv_close((uv_handle_t *)&server->stop_timer, NULL);
    gd_acceptor_close(&server->acceptor);
    uv_close((uv_handle_t *)&server->deadline_timer, NULL);
    gd_reloader_close(&server->reloader);
    gd_supervision_close(&server->supervision);
    gd_metrics_close(&server->metrics);
}

// Calls `visit` for every session; a visit may end the session, which puts the last one in its place.
static void for_each_session(struct server *server, void (*visit)(struct gd_session *session)) {
    for (uint32_t i = server->n_sessions; i-- > 0;)
        if (i < server->n_sessions)
            visit(server->sessions[i]);
}

static void tell_runs(struct server *server) {
    uint32_t runs = 0;
    for (uint32_t i = 0; i < server->n_sessions; i++)
        runs += gd_session_has_run(server->sessions[i]);
    gd_supervision_tell_runs(&server->supervision, runs);
}

static void on_session_attached(void *context) {
    tell_runs(context);
}

static struct gd_status_sources sources_of(const struct server *server) {
    return (struct gd_status_sources){&server->host, server->quota, server->started, server->sessions,
                                      server->n_sessions};
}

// The first time: gives up what cannot be written now. The second: a writer hangs inside the kernel, go without it.
static void on_stop_timeout(uv_timer_t *timer) {
    struct server *server = timer->data;
    if (server->gave_up) {
        uv_stop(&server->loop);
        return;
    }
    server->gave_up = true;
    gd_log(GD_LOG_ERROR, "%u runs could not be written within %d s", server->n_sessions, STOP_TIMEOUT_MS / 1000);
    for_each_session(server, gd_session_abandon);
    uv_timer_start(timer, on_stop_timeout, ABANDON_TIMEOUT_MS, 0);
}

static void end_if_empty(struct server *server) {
    if (server->stopping && server->n_sessions == 0 && !uv_is_closing((uv_handle_t *)&server->progress))
        close_handles(server);
}

static void stop(struct server *server) {
    if (server->stopping)
        return;
    server->stopping = server->host.stopping = true;
    gd_supervision_stop(&server->supervision);
    gd_acceptor_stop(&server->acceptor);
    uv_timer_start(&server->stop_timer, on_stop_timeout, STOP_TIMEOUT_MS, 0);
    for_each_session(server, gd_session_stop);
    end_if_empty(server);
}

static void on_stop_signal(uv_poll_t *poll, int status, int events) {
    struct server *server = poll->data;
    struct signalfd_siginfo signal;
    (void)status;
    (void)events;
    if (read(server->stop_signals_fd, &signal, sizeof(signal)) != sizeof(signal))
        return;
    gd_log(GD_LOG_INFO, "stopping on signal %u with %u runs", signal.ssi_signo, server->n_sessions);
    stop(server);
}

// They stay blocked: asked again while it ends, it ends no sooner, and nothing that is written last is cut off.
static int take_over_stop_signals(void) {
    sigset_t numbers;
    sigemptyset(&numbers);
    sigaddset(&numbers, SIGTERM);
    sigaddset(&numbers, SIGINT);
    pthread_sigmask(SIG_BLOCK, &numbers, NULL); // before there are other threads
    int fd = signalfd(-1, &numbers, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

// For who comes from now on.
static void on_reload(void *context) {
    struct server *server = context;
    gd_quota_set_limits(server->quota, &server->options->quota);
    server->host.admin_group = server->options->admin_group;
    server->host.attach_timeout_ms = server->options->attach_timeout_ms;
    gd_metrics_start(&server->metrics, server->options->metrics_interval_s);
}

static void on_progress(uv_async_t *async) {
    struct server *server = async->data;
    for_each_session(server, gd_session_advance);
}

static void on_turn(uv_prepare_t *prepare) {
    struct server *server = prepare->data;
    server->turn = (struct gd_turn){.number = server->turn.number + 1};
}

static void notify(void *context) {
    struct server *server = context;
    uv_async_send(&server->progress);
}

static void on_session_gone(void *context, struct gd_session *session) {
    struct server *server = context;
    for (uint32_t i = 0; i < server->n_sessions; i++)
        if (server->sessions[i] == session) {
            server->sessions[i] = server->sessions[--server->n_sessions];
            break;
        }
    tell_runs(server);
    // Of 50 runs that ended within a moment glibc kept 40 MB; with the last client gone, nobody waits for it to let go.
    if (server->n_sessions == 0)
        malloc_trim(0);
    if (server->options->connection_fd >= 0)
        stop(server);
    end_if_empty(server);
}

static struct gd_session *holder_of(void *context, const struct gd_memory_id *id) {
    struct server *server = context;
    for (uint32_t i = 0; i < server->n_sessions; i++)
        if (gd_session_holds(server->sessions[i], id))
            return server->sessions[i];
    return NULL;
}

static void measure(void *context, struct gd_daemon_status *ret_status) {
    struct gd_status_sources sources = sources_of(context);
    gd_status_measure(&sources, ret_status);
}

static int answer_status(void *context, struct gd_session *asker, const struct gd_status_request *request) {
    struct gd_status_sources sources = sources_of(context);
    return gd_status_answer(&sources, asker, request);
}

static int reserve_session(struct server *server) {
    if (server->n_sessions < server->sessions_capacity)
        return 0;
    uint32_t capacity = server->sessions_capacity ? 2 * server->sessions_capacity : SESSIONS_INITIAL;
    struct gd_session **sessions = realloc(server->sessions, capacity * sizeof(*sessions));
    if (!sessions)
        return -ENOMEM;
    server->sessions = sessions;
    server->sessions_capacity = capacity;
    return 0;
}

static void check_deadlines(uv_timer_t *timer);

// Looks at the deadlines in that many milliseconds, unless sooner.
static void watch_deadline(struct server *server, uint64_t milliseconds) {
    uv_timer_t *timer = &server->deadline_timer;
    if (!uv_is_active((uv_handle_t *)timer) || uv_timer_get_due_in(timer) > milliseconds)
        uv_timer_start(timer, check_deadlines, milliseconds, 0);
}

static void watch(void *context, uint64_t milliseconds) {
    watch_deadline(context, milliseconds);
}

static void check_deadlines(uv_timer_t *timer) {
    struct server *server = timer->data;
    uint64_t least_ms = UINT64_MAX;
    for (uint32_t i = server->n_sessions; i-- > 0;) {
        uint64_t left_ms = gd_session_check_deadline(server->sessions[i]);
        if (left_ms < least_ms)
            least_ms = left_ms;
    }
    if (least_ms < UINT64_MAX)
        uv_timer_start(timer, check_deadlines, least_ms, 0);
}

static int add_session_consume(struct server *server, int fd) {
    struct ucred peer = gd_connection_peer(fd);
    struct gd_holdings holdings = {0};
    struct gd_error error;
    uint64_t now_ns = uv_now(&server->loop) * NS_PER_MS;

    server->counters.connections++;
    gd_quota_sweep(server->quota, now_ns);
    int result = gd_admission_check(&server->options->admission, fd, peer.uid, &error);
    if (result == 0)
        result = gd_holdings_init(&holdings, server->quota, peer.uid, now_ns, &error);
    if (result == -EBADMSG) {
        gd_log(GD_LOG_WARNING, "client pid %d uid %u: refused: %s", peer.pid, peer.uid, error.text);
        server->counters.refused[error.code]++;
        gd_reply_error_to(fd, &error);
    }
    if (result == 0)
        result = reserve_session(server);
    if (result == 0)
        result = gd_session_new_consume(&server->host, fd, &holdings, &server->sessions[server->n_sessions]);
    if (result < 0) {
        gd_holdings_release(&holdings);
        close(fd);
        return result;
    }
    server->n_sessions++;
    watch_deadline(server, gd_session_check_deadline(server->sessions[server->n_sessions - 1]));
    return 0;
}

static void take_client(void *context, int fd) {
    int result = add_session_consume(context, fd);
    if (result < 0 && result != -EBADMSG)
        gd_log(GD_LOG_WARNING, "a client could not be served: %s", strerror(-result));
}

static int start_listening(struct server *server) {
    const struct gd_server_options *options = server->options;
    int result = gd_acceptor_listen(&server->acceptor, options->socket_path, &options->socket_rights);
    if (result < 0)
        return result;
    gd_supervision_begin(&server->supervision);
    gd_log(GD_LOG_INFO, "listening at %s: %u workers, %s kernels", server->acceptor.listener.path, options->workers,
           options->kernels->name);
    return 0;
}

// Timers, and what tells the loop of other threads' progress and of its own turns.
static void init_handles(struct server *server) {
    uv_async_init(&server->loop, &server->progress, on_progress);
    server->progress.data = server;
    uv_prepare_init(&server->loop, &server->turn_begins);
    server->turn_begins.data = server;
    uv_prepare_start(&server->turn_begins, on_turn);
    uv_timer_init(&server->loop, &server->stop_timer);
    server->stop_timer.data = server;
    gd_acceptor_init(&server->acceptor, &server->loop, take_client, server);
    uv_timer_init(&server->loop, &server->deadline_timer);
    server->deadline_timer.data = server;
    gd_supervision_init(&server->supervision, &server->loop, &server->counters, &server->thread_counters);
    gd_metrics_init(&server->metrics, &server->loop, server->metrics_file, &server->counters, measure, server);
    gd_reloader_init(&server->reloader, &server->loop, server->options, on_reload, server);
}

static int init(struct server *server) {
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    server->started = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;

    // Large blocks go back to the system when freed. Left to itself glibc raises the threshold as they come and go, and
    // keeps them: after 60,000 runs, four at a time, 15.5 MiB were resident instead of 4.2.
    mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); // a write past RLIMIT_FSIZE fails instead

    int result = server->stop_signals_fd = take_over_stop_signals();
    if (result >= 0)
        result = gd_state_directory_default(&server->default_state_directory);
    if (result == 0)
        result = gd_quota_new(&server->options->quota, &server->quota);
    if (result == 0)
        result = gd_alert_ring_new(&server->alerts);
    if (result == 0)
        result = gd_arena_init(&server->arena, GD_DECODE_ARENA_BYTES);
    if (result == 0 && server->options->metrics_file)
        result = gd_metrics_file_new(server->options->metrics_file, &server->metrics_file);
    if (result == 0) // the last that may fail: its threads do not stand an exit without a loop that has run
        result = gd_loop_init(&server->loop, server->options->workers);
    if (result < 0)
        return result;
    uv_poll_init(&server->loop, &server->stop_signals, server->stop_signals_fd);
    server->stop_signals.data = server;
    uv_poll_start(&server->stop_signals, UV_READABLE, on_stop_signal);
    init_handles(server);

    server->host = (struct gd_session_host){
        .loop = &server->loop,
        .arena = &server->arena,
        .submissions = &server->submissions,
        .kernels = server->options->kernels,
        .state_directory =
            server->options->state_directory ? server->options->state_directory : server->default_state_directory,
        .turn = &server->turn,
        .counters = &server->counters,
        .thread_counters = &server->thread_counters,
        .alerts = server->alerts,
        .workers = server->options->workers,
        .admin_group = server->options->admin_group,
        .attach_timeout_ms = server->options->attach_timeout_ms,
        .notify = notify,
        .holder_of = holder_of,
        .watch = watch,
        .answer_status = answer_status,
        .attached = on_session_attached,
        .gone = on_session_gone,
        .context = server,
    };
    return 0;
}

int gd_server_run(struct gd_server_options *options) {
    struct server server = {.options = options};

    gd_log_set_level(options->log_level);
    int result = init(&server);
    if (result < 0) {
        gd_log(GD_LOG_ERROR, "cannot start: %s", strerror(-result));
        return EXIT_FAILURE;
    }
    result =
        options->connection_fd < 0 ? start_listening(&server) : add_session_consume(&server, options->connection_fd);
    gd_metrics_start(&server.metrics, options->metrics_interval_s);
    if (result < 0)
        stop(&server);
    uv_run(&server.loop, UV_RUN_DEFAULT);
    gd_metrics_finish(&server.metrics);
    if (server.gave_up)
        _exit(EXIT_FAILURE); // a thread is inside the kernel and may come back to what this would free
    if (gd_reloader_is_hanging(&server.reloader))
        _exit(result < 0 ? EXIT_FAILURE : EXIT_SUCCESS); // so may this one

    uv_loop_close(&server.loop);
    close(server.stop_signals_fd);
    gd_arena_deinit(&server.arena);
    gd_submission_pool_deinit(&server.submissions);
    gd_quota_free(server.quota);
    gd_alert_ring_free(server.alerts);
    free(server.sessions);
    free(server.default_state_directory);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
