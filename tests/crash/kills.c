// The daemon, killed at random instants of a busy run: its event file is the undisturbed one, byte for byte.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "../stress/random.h"
#include "client/internal.h"
#include "crash.h"

enum {
    KILLS_A_ROUND = 25, // of one run
    ELEMENTS_MIN = 10,
    ELEMENTS_MANY = 200000, // so many that a kill finds a kernel at work
    ELEMENTS_MAX = 600000,  // more than one worker shares a snapshot from half a million on
    STEPS_AFTERWARDS = 20,  // that the last daemon serves in peace
    SHORT_WRITE_BYTES = 61, // prime to all that records are made of
    AIM_PATIENCE_US = 200000,
    UNAIMED_US_MAX = 40000,
    AIMED_US_MAX = 300,
};

// What a kill can hit; one can hit several.
enum kind {
    KIND_KERNEL,      // a thread was inside a kernel
    KIND_UNWRITTEN,   // records were committed and not written
    KIND_TORN,        // the file on disk ends inside a record
    KIND_UNCOMMITTED, // two or more messages were on their way
    KIND_ATTACH,      // an Attach was not answered
    KIND_COUNT,
};

static const char *const kind_names[KIND_COUNT] = {
    [KIND_KERNEL] = "inside a kernel", [KIND_UNWRITTEN] = "between commit and write",
    [KIND_TORN] = "inside a write",    [KIND_UNCOMMITTED] = "with two or more unacknowledged",
    [KIND_ATTACH] = "during attach",
};

struct kills {
    struct crash_daemon *daemon;
    struct crash_stream stream;
    struct gradientd_run *run;
    uint64_t random;
    uint32_t wanted; // in this round
    uint32_t kills, hits[KIND_COUNT];
    uint64_t boundary;         // of whole records on disk, as far as they were looked at
    _Atomic uint64_t sequence; // of the run's last message
    _Atomic bool over;         // no more kills in this round
    int result;
};

static uint64_t on_their_way(const struct kills *kills) {
    uint64_t sequence = kills->sequence;
    return sequence - atomic_load_explicit(kills->run->commits, memory_order_acquire);
}

static bool is_near(const struct kills *kills, enum kind kind) {
    const struct gd_fault_page *page = kills->daemon->page;
    switch (kind) {
    case KIND_KERNEL:
        return page->kernels > 0;
    case KIND_UNWRITTEN:
        return page->appended > page->written;
    case KIND_TORN:
        return page->reached[GD_FAULT_WRITE_BEGUN] > page->reached[GD_FAULT_WRITE_COUNTED];
    case KIND_UNCOMMITTED:
        return !page->attaching && page->reached[GD_FAULT_ATTACH_ANSWERED] > 0 && on_their_way(kills) >= 2;
    default:
        return page->attaching;
    }
}

static enum kind rarest(const struct kills *kills) {
    enum kind found = 0;
    for (enum kind kind = 1; kind < KIND_COUNT; kind++)
        if (kills->hits[kind] < kills->hits[found])
            found = kind;
    return found;
}

// Waits for a random instant; two of three lie near what was hit least.
static void aim(struct kills *kills) {
    if (stress_random_below(&kills->random, 3) == 0) {
        crash_pause_us(stress_random_below(&kills->random, UNAIMED_US_MAX));
        return;
    }
    enum kind kind = rarest(kills);
    double until = crash_now() + AIM_PATIENCE_US * 1e-6;
    while (!is_near(kills, kind) && crash_now() < until)
        continue;
    uint32_t pause = stress_random_below(&kills->random, AIMED_US_MAX);
    if (pause % 2) // at once as often as not: a pause takes 50 us and more
        crash_pause_us(pause);
}

// The daemon is dead: what was it doing?
static void count_hits(struct kills *kills, const char *path) {
    const struct gd_fault_page *page = kills->daemon->page;
    kills->hits[KIND_KERNEL] += page->kernels > 0;
    kills->hits[KIND_UNWRITTEN] += page->appended > page->written;
    kills->hits[KIND_TORN] += crash_file_is_torn(path, &kills->boundary);
    kills->hits[KIND_UNCOMMITTED] += on_their_way(kills) >= 2;
    kills->hits[KIND_ATTACH] += page->attaching;
    kills->kills++;
}

static void *keep_killing(void *context) {
    struct kills *kills = context;
    for (uint32_t i = 0; i < kills->wanted && kills->result == 0; i++) {
        aim(kills);
        kills->result = crash_daemon_kill(kills->daemon);
        if (kills->result == 0) {
            count_hits(kills, gradientd_event_path(kills->run));
            kills->result = crash_daemon_start(kills->daemon);
        }
    }
    kills->over = true;
    return NULL;
}

// Submits as fast as the daemon takes it until the kills are over. Returns the last step, or -1.
static int64_t train(struct kills *kills) {
    int64_t step = 0, last = INT64_MAX;
    while (step < last) {
        int result = crash_stream_submit(&kills->stream, kills->run, ++step);
        if (result != GRADIENTD_OK)
            return crash_fail("step %lld: a submit returned %d: %s", (long long)step, result,
                              gradientd_last_error(kills->run));
        kills->sequence = kills->run->sequence;
        if (kills->over && last == INT64_MAX)
            last = step + STEPS_AFTERWARDS;
    }
    return step;
}

static int train_under_fire(struct kills *kills, char **ret_path, int64_t *ret_steps) {
    char logdir[CRASH_PATH_BYTES + 8];
    pthread_t keeper;

    snprintf(logdir, sizeof(logdir), "%s/runs", kills->daemon->directory);
    if (crash_stream_open(&kills->stream, kills->daemon->socket, logdir, &kills->run) < 0)
        return -1;
    *ret_path = strdup(gradientd_event_path(kills->run));
    kills->boundary = 0;
    kills->sequence = 0;
    kills->over = false;
    if (pthread_create(&keeper, NULL, keep_killing, kills) != 0)
        return crash_fail("no thread");
    *ret_steps = train(kills);
    pthread_join(keeper, NULL);
    int closed = gradientd_close(kills->run, GRADIENTD_SUCCESS);
    if (*ret_steps < 0 || kills->result < 0)
        return -1;
    if (kills->stream.warnings != 1)
        return crash_fail("%u warnings, of which there should be one", kills->stream.warnings);
    return closed == GRADIENTD_OK ? 0 : crash_fail("gradientd_close returned %d", closed);
}

// One run under fire, and the same run in peace.
static int play_round(struct kills *kills, uint32_t round, uint64_t seed) {
    char *path = NULL, *expected = NULL;
    int64_t steps = 0;

    if (crash_stream_init(&kills->stream, seed + round, round % 2 == 0 ? ELEMENTS_MANY : ELEMENTS_MIN, ELEMENTS_MAX) <
        0)
        return -1;
    kills->daemon->page->write_bytes_max = stress_random_below(&kills->random, 3) ? SHORT_WRITE_BYTES : 0;
    int result = train_under_fire(kills, &path, &steps);
    kills->daemon->page->write_bytes_max = 0;
    if (result == 0)
        result = crash_stream_run_alone(&kills->stream, kills->daemon, steps, &expected);
    if (result == 0)
        result = crash_files_compare(path, expected);
    if (result == 0) {
        remove(path);
        remove(expected);
    }
    free(path);
    free(expected);
    crash_stream_deinit(&kills->stream);
    return result;
}

int crash_kill_daemons(struct crash_daemon *daemon, uint32_t count, uint64_t seed) {
    struct kills kills = {.daemon = daemon, .random = seed};
    uint32_t least = count < 20 ? 1 : count / 20, rounds = 0; // of each kind

    if (crash_daemon_start(daemon) < 0 || crash_daemon_wait_up(daemon) < 0)
        return -1;
    while (kills.kills < count || (kills.hits[rarest(&kills)] < least && kills.kills < 2 * count + KILLS_A_ROUND)) {
        uint32_t left = kills.kills < count ? count - kills.kills : KILLS_A_ROUND;
        kills.wanted = left < KILLS_A_ROUND ? left : KILLS_A_ROUND;
        if (play_round(&kills, rounds++, seed) < 0)
            return -1;
    }
    for (enum kind kind = 0; kind < KIND_COUNT; kind++)
        if (kills.hits[kind] < least)
            return crash_fail("only %u kills %s of %u, at least %u are wanted", kills.hits[kind], kind_names[kind],
                              kills.kills, least);
    printf("ok: %u kills of the daemon in %u runs:", kills.kills, rounds);
    for (enum kind kind = 0; kind < KIND_COUNT; kind++)
        printf(" %u %s%s", kills.hits[kind], kind_names[kind], kind + 1 < KIND_COUNT ? "," : "");
    puts("; every file as if nothing had happened");
    return crash_daemon_stop(daemon);
}
