// The daemon dies at each of its fault points, one by one.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "../stress/random.h"
#include "crash.h"

enum { ELEMENTS_MIN = 10, ELEMENTS_MAX = 100000, STEPS = 60, FIRST_KILL_STEP = 10, TIMES_MAX = 5 };

struct visit {
    struct crash_daemon *daemon;
    enum gd_fault_point point;
    int result;
};

// Some come once for each daemon that serves the run, the others with every step.
static bool comes_once(enum gd_fault_point point) {
    return point <= GD_FAULT_ATTACH_ANSWERED || point >= GD_FAULT_END_COMMITTED;
}

// Starts the daemon that will die and, once it has, one that will not.
static void *serve(void *context) {
    struct visit *visit = context;
    struct crash_daemon *daemon = visit->daemon;
    const char *name = gd_fault_point_name(visit->point);

    visit->result = crash_daemon_start(daemon);
    int status = visit->result < 0 ? -1 : crash_daemon_wait_end(daemon);
    if (visit->result == 0 && status < 0)
        visit->result = crash_fail("the daemon never died at %s", name);
    else if (visit->result == 0 && (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL))
        visit->result = crash_fail("%s: the daemon ended with 0x%x", name, (unsigned)status);
    daemon->page->armed = 0;
    if (visit->result == 0)
        visit->result = crash_daemon_start(daemon);
    return NULL;
}

// Trains with the first daemon, the one that dies and the last; closes the run. Returns 0 or -1.
static int train(struct visit *visit, struct crash_stream *stream, struct gradientd_run *run) {
    pthread_t server;
    int result = GRADIENTD_OK;
    bool served = false;

    for (int64_t step = 1; step <= STEPS && result == GRADIENTD_OK; step++) {
        result = crash_stream_submit(stream, run, step);
        if (step != FIRST_KILL_STEP)
            continue;
        if (crash_daemon_kill(visit->daemon) < 0)
            break;
        served = pthread_create(&server, NULL, serve, visit) == 0;
    }
    int closed = gradientd_close(run, GRADIENTD_SUCCESS);
    if (served)
        pthread_join(server, NULL);
    if (!served || result != GRADIENTD_OK || closed != GRADIENTD_OK)
        return crash_fail("%s: a submit returned %d, gradientd_close %d", gd_fault_point_name(visit->point), result,
                          closed);
    if (stream->warnings != 1)
        return crash_fail("%u warnings, of which there should be one", stream->warnings);
    return visit->result;
}

static int visit_point(struct crash_daemon *daemon, enum gd_fault_point point, uint64_t seed) {
    struct visit visit = {.daemon = daemon, .point = point};
    struct crash_stream stream;
    struct gradientd_run *run;
    char logdir[CRASH_PATH_BYTES + 8];
    char *path = NULL, *expected = NULL;
    uint64_t random = seed;

    snprintf(logdir, sizeof(logdir), "%s/runs", daemon->directory);
    if (crash_stream_init(&stream, seed, ELEMENTS_MIN, ELEMENTS_MAX) < 0 ||
        crash_stream_open(&stream, daemon->socket, logdir, &run) < 0)
        return -1;
    path = strdup(gradientd_event_path(run));
    daemon->page->armed_time = comes_once(point) ? 1 : 1 + stress_random_below(&random, TIMES_MAX);
    daemon->page->armed = 1U + point;
    daemon->page->write_bytes_max = 61;
    int result = train(&visit, &stream, run);
    daemon->page->write_bytes_max = 0;
    if (result == 0)
        result = crash_stream_run_alone(&stream, daemon, STEPS, &expected);
    if (result == 0)
        result = crash_files_compare(path, expected);
    if (result == 0)
        printf("ok: died at %s, time %u\n", gd_fault_point_name(point), daemon->page->armed_time);
    free(path);
    free(expected);
    crash_stream_deinit(&stream);
    return result;
}

int crash_visit_points(struct crash_daemon *daemon, uint64_t seed) {
    if (crash_daemon_start(daemon) < 0 || crash_daemon_wait_up(daemon) < 0)
        return -1;
    for (enum gd_fault_point point = 0; point < GD_FAULT_POINT_COUNT; point++)
        if (visit_point(daemon, point, seed + point) < 0)
            return -1;
    return crash_daemon_stop(daemon);
}
