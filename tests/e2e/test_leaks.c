// However many runs and connections came and went, however they ended: the daemon holds what it held before.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fixture.h"
#include "gradientd/protocol.h"
#include "process_usage.h"
#include "raw_client.h"
#include "raw_frames.h"
#include "trainer.h"

enum {
    RUNS = 10000,
    DROPPED = 1000,
    TRAINERS = 4,      // at once
    WARM_UP_PART = 4,  // a quarter more goes before the baseline is taken
    FDS_BEHIND = 128,  // half of what a user may have open
    GROWTH_KIB = 1024, // pieces that the allocator keeps differ by 0.3 MiB: 100 bytes a run would be seen, 1 KiB a drop
};

static const double QUIET_SECONDS = 0.3;

TestSuite(leaks, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 240);

// Does it once for warmth, then until the daemon has grown by no more than GROWTH_KIB: what leaks grows every time, and
// what the allocator keeps after an unlucky burst does not.
static void expect_nothing_left(void (*come_and_go)(int times), int times) {
    enum { ROUNDS = 3 };
    struct process_usage before, after;
    come_and_go(times / WARM_UP_PART);
    after = process_usage_at_rest(daemon_process.pid, QUIET_SECONDS);
    for (int round = 0; round < ROUNDS; round++) {
        before = after;
        come_and_go(times);
        after = process_usage_at_rest(daemon_process.pid, QUIET_SECONDS);
        cr_assert_eq(after.fds, before.fds, "%zu descriptors, %zu before", after.fds, before.fds);
        cr_assert_eq(after.threads, before.threads, "%zu threads, %zu before", after.threads, before.threads);
        if (after.resident_kib <= before.resident_kib + GROWTH_KIB)
            return;
    }
    cr_assert_fail("%llu KiB resident, %llu before", (unsigned long long)after.resident_kib,
                   (unsigned long long)before.resident_kib);
}

// ---- runs

struct trainers {
    _Atomic int left; // runs still to be opened
    _Atomic int done;
};

// On a thread of its own, where nothing may be asserted: says what went wrong instead.
static bool train_once(const char *name) {
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, name, NULL);
    struct gradientd_run *run;
    struct gradientd_error error;
    float gradient[TRAINER_NUMEL] = {1.0f};
    if (gradientd_open(&options, &run, &error) < 0) {
        fprintf(stderr, "%s is not opened: %s\n", name, error.text);
        return false;
    }
    unlink(gradientd_event_path(run)); // a new run looks at all files of its directory
    struct gradientd_step step = trainer_step(1);
    int submitted = trainer_submit(run, &step, gradient);
    int closed = gradientd_close(run, GRADIENTD_SUCCESS);
    if (submitted != GRADIENTD_OK || closed != GRADIENTD_OK)
        fprintf(stderr, "%s: submit says %d, close %d\n", name, submitted, closed);
    return submitted == GRADIENTD_OK && closed == GRADIENTD_OK;
}

// A daemon that is behind with closing what runs had open must not take them for more than a user may have.
static void *train(void *context) {
    const struct timespec pause = {.tv_nsec = 1000000};
    struct trainers *trainers = context;
    char name[32];
    snprintf(name, sizeof(name), "%lx", (unsigned long)pthread_self());
    while (atomic_fetch_sub(&trainers->left, 1) > 0) {
        while (scratch_count_fds(daemon_process.pid) > FDS_BEHIND)
            nanosleep(&pause, NULL);
        if (!train_once(name))
            break;
        atomic_fetch_add(&trainers->done, 1);
    }
    return NULL;
}

static void train_runs(int runs) {
    struct trainers trainers = {.left = runs};
    pthread_t threads[TRAINERS];
    for (int i = 0; i < TRAINERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, train, &trainers), 0);
    for (int i = 0; i < TRAINERS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(trainers.done, runs, "%d of %d runs went well", trainers.done, runs);
}

Test(leaks, runs_opened_and_closed) {
    expect_nothing_left(train_runs, RUNS);
}

// ---- connections dropped half-way

// How a connection ends: the frame, of which this much is sent with so many descriptors.
struct drop {
    enum raw_stage stage;
    void (*send)(struct raw_client *client); // NULL: nothing
    size_t percent;
    size_t fds;
};

static const struct drop drops[] = {
    {RAW_CONNECTED, NULL, 0, 0},
    {RAW_CONNECTED, raw_send_hello, 30, 0}, // inside the frame's header
    {RAW_CONNECTED, raw_send_hello, 90, 0},
    {RAW_CONNECTED, raw_send_hello, 100, 0}, // Welcome stays unread
    {RAW_WELCOME, NULL, 0, 0},
    {RAW_WELCOME, raw_send_open_run, 5, 0},
    {RAW_WELCOME, raw_send_open_run, 60, 0}, // inside the message or the group table
    {RAW_WELCOME, raw_send_open_run, 95, 0},
    {RAW_WELCOME, raw_send_open_run, 100, 0},
    {RAW_LAID_OUT, NULL, 0, 0},
    {RAW_LAID_OUT, raw_send_attach, 60, 2},  // the descriptors are there, the message is not
    {RAW_LAID_OUT, raw_send_attach, 100, 1}, // half of what it declares
    {RAW_LAID_OUT, raw_send_attach, 100, 2}, // while the file is being looked at
    {RAW_LAID_OUT, raw_send_attach, 100, 3},
    {RAW_ATTACHED, NULL, 0, 0},
    {RAW_ATTACHED, raw_send_snapshot, 20, 0},
    {RAW_ATTACHED, raw_send_snapshot, 70, 0},
    {RAW_ATTACHED, raw_send_snapshot, 100, 0}, // while it is being analysed
    {RAW_ATTACHED, raw_send_snapshot, 100, 1},
    {RAW_ATTACHED, raw_send_close_run, 80, 0},
    {RAW_ATTACHED, raw_send_close_run, 100, 0},
};

enum { N_DROPS = sizeof(drops) / sizeof(drops[0]) };

static void drop_connection(const struct drop *drop) {
    struct raw_frame frame = {.bytes = 0};
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, drop->stage, event_path);
    if (drop->send)
        raw_frame_capture(&frame, drop->send);
    int memory = raw_memory_new(client.total_bytes ? client.total_bytes : 1, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    int event_file = open(event_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int fds[] = {memory, event_file, event_file};
    if (frame.bytes > 0)
        raw_client_send_bytes(&client, frame.data, frame.bytes * drop->percent / 100, fds, drop->fds);
    close(memory);
    close(event_file);
    raw_client_close(&client);
}

// Each kind once at a time, and then the next lot: a daemon that is behind must not take them for more than a user may
// have.
static void drop_connections(int connections) {
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (int i = 0; i < connections; i++) {
        drop_connection(&drops[i % N_DROPS]);
        if (i % N_DROPS == N_DROPS - 1)
            daemon_process_expect_fds(&daemon_process, fds);
    }
}

Test(leaks, connections_dropped_half_way) {
    expect_nothing_left(drop_connections, DROPPED);
}
