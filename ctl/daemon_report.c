#include "daemon_report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "printable.h"

// Some 100,000 runs; protobuf-c takes up to 60 times a hostile message's own bytes.
enum { REPORT_MEMORY_BYTES = 128 << 20 };

int gd_daemon_watch_init(struct gd_daemon_watch *watch, const struct gd_daemon_options *options,
                         const struct gd_waiter *waiter) {
    *watch = (struct gd_daemon_watch){.options = options, .waiter = *waiter, .link = {.fd = -1}};
    int result = gd_arena_init(&watch->arena, REPORT_MEMORY_BYTES);
    if (result < 0)
        fprintf(stderr, "gradientctl: no memory: %d bytes are needed to unpack what a daemon tells\n",
                REPORT_MEMORY_BYTES);
    return result;
}

void gd_daemon_watch_deinit(struct gd_daemon_watch *watch) {
    gd_daemon_link_close(&watch->link);
    gd_arena_deinit(&watch->arena);
    free(watch->runs);
}

static int keep_runs(struct gd_daemon_watch *watch, const Gradientd__Status *status, struct gd_trouble *ret_trouble) {
    size_t n = watch->n_runs + status->n_runs;
    if (n > watch->runs_room) {
        const Gradientd__RunStatus **runs = reallocarray(watch->runs, n, sizeof(Gradientd__RunStatus *));
        if (!runs)
            return gd_trouble_set(ret_trouble, GD_TROUBLE_MACHINE, ENOMEM, "no memory for %zu runs", n);
        watch->runs = runs;
        watch->runs_room = n;
    }
    for (size_t i = 0; i < status->n_runs; i++)
        watch->runs[watch->n_runs++] = status->runs[i];
    return 0;
}

// Turns the request into that for the answer's next part. Returns false where there is none: each part moves on, so
// that they come to an end.
static bool ask_next(const Gradientd__Status *status, Gradientd__StatusRequest *request) {
    bool had_alerts = request->has_alerts_after; // which may leave no room for a run
    request->has_alerts_after = false;
    if (!status->more_runs)
        return false;
    if (status->n_runs == 0)
        return had_alerts;
    uint64_t last = status->runs[status->n_runs - 1]->number;
    bool moves_on = last > request->runs_after;
    request->has_runs_after = true;
    request->runs_after = last;
    return moves_on;
}

static int ask_all(struct gd_daemon_watch *watch, uint64_t alerts_after, struct gd_trouble *ret_trouble) {
    int64_t deadline_ms = gd_now_ms() + watch->options->timeout_ms;
    Gradientd__StatusRequest request = GRADIENTD__STATUS_REQUEST__INIT;
    request.has_alerts_after = alerts_after != UINT64_MAX;
    request.alerts_after = alerts_after;
    const Gradientd__Status *status;
    do {
        int result = gd_daemon_link_ask(&watch->link, &request, deadline_ms, &watch->arena, &status, ret_trouble);
        if (result == 0)
            result = keep_runs(watch, status, ret_trouble);
        if (result < 0)
            return result;
        watch->first = watch->first ? watch->first : status;
    } while (ask_next(status, &request));

    if (!watch->first->daemon)
        return gd_trouble_set(ret_trouble, GD_TROUBLE_GARBAGE, EPROTO, "the daemon says nothing about itself");
    watch->daemon = watch->first->daemon;
    return 0;
}

// Connects where there is no connection, and asks.
static int ask_once(struct gd_daemon_watch *watch, uint64_t alerts_after, struct gd_trouble *ret_trouble) {
    const struct gd_daemon_options *options = watch->options;
    gd_arena_reset(&watch->arena);
    watch->daemon = NULL;
    watch->first = NULL;
    watch->n_runs = 0;

    int result = 0;
    if (watch->link.fd < 0)
        result = gd_daemon_link_open(options->socket, options->timeout_ms, &watch->waiter, &watch->link, ret_trouble);
    if (result == 0)
        result = ask_all(watch, alerts_after, ret_trouble);
    if (result < 0)
        gd_daemon_link_close(&watch->link);
    return result;
}

int gd_daemon_watch_ask(struct gd_daemon_watch *watch, uint64_t alerts_after, struct gd_trouble *ret_trouble) {
    bool connected = watch->link.fd >= 0;
    int result = ask_once(watch, alerts_after, ret_trouble);
    // restarted since the last question, or weary of a watcher that asks seldom
    if (result < 0 && connected && ret_trouble->kind == GD_TROUBLE_GONE)
        result = ask_once(watch, alerts_after, ret_trouble);
    return result;
}

const char *gd_run_name(const char *run) {
    return *run ? run : ".";
}

uint64_t gd_run_lag(const Gradientd__RunStatus *run) {
    return run->received_sequence > run->committed_sequence ? run->received_sequence - run->committed_sequence : 0;
}

int gd_trouble_print(const struct gd_trouble *trouble) {
    if (trouble->kind == GD_TROUBLE_INTERRUPTED)
        return GD_EXIT_DONE;
    fputs("gradientctl: ", stderr);
    gd_printable_write(stderr, trouble->text);
    putc('\n', stderr);
    return GD_EXIT_FAILED;
}
