// What a step costs the trainer: a submit, a commit of gradients that lie in the slot already, and, to compare with, a
// plain copy of the same bytes and a plain socket stream of them.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "passes.h"
#include "sidecar.h"

enum {
    TENSOR_ELEMS = 250000, // 1 MB, a layer's size
    SLOTS = 8,             // as many as a run has with 5 lags and 2 in flight
};

// A process at the other end of a socket that reads whole steps into its own memory and analyses each before it reads
// the next: what a daemon without shared memory would do.
struct stream_peer {
    int socket;
    pid_t pid;
    uint8_t *memory;
    uint64_t bytes;
};

static bool read_whole(int socket, uint8_t *to, uint64_t bytes) {
    while (bytes > 0) {
        ssize_t got = recv(socket, to, bytes, MSG_WAITALL);
        if (got <= 0)
            return false;
        to += got;
        bytes -= (uint64_t)got;
    }
    return true;
}

static _Noreturn void serve_stream(int socket, uint64_t elements) {
    struct bench_memory memory;
    struct bench_pass pass = {.memory = &memory, .lags = 5, .state = true, .threads = 1};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench_memory_init(&memory, elements, GD_F32, 5);
    gd_kernels_select(NULL, &pass.kernels);
    while (read_whole(socket, (uint8_t *)memory.streams[0], elements * sizeof(float))) {
        uint8_t taken = 1;
        if (send(socket, &taken, 1, 0) != 1) // all is read: the next step is timed while this one is analysed
            break;
        bench_run_pass(&pass);
        if (send(socket, &taken, 1, 0) != 1)
            break;
    }
    _exit(0);
}

static void stream_peer_start(struct stream_peer *peer, uint64_t elements) {
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        bench_fail("socketpair: %s", strerror(errno));
    peer->pid = fork();
    if (peer->pid < 0)
        bench_fail("fork: %s", strerror(errno));
    if (peer->pid == 0) {
        close(sockets[0]);
        serve_stream(sockets[1], elements);
    }
    close(sockets[1]);
    peer->socket = sockets[0];
}

static void stream_peer_stop(struct stream_peer *peer) {
    close(peer->socket);
    waitpid(peer->pid, NULL, 0);
}

static void stream_step(const struct stream_peer *peer, const struct bench_model *model) {
    const uint8_t *from = model->buffer;
    uint64_t left = model->buffer_bytes;
    while (left > 0) {
        ssize_t sent = send(peer->socket, from, left, MSG_NOSIGNAL);
        if (sent < 0)
            bench_fail("send: %s", strerror(errno));
        from += sent;
        left -= (uint64_t)sent;
    }
}

static void stream_wait(const struct stream_peer *peer) {
    uint8_t said;
    if (recv(peer->socket, &said, 1, MSG_WAITALL) != 1)
        bench_fail("the stream's peer is gone");
}

struct stalls {
    struct bench_series copy, submit_idle, submit_busy, gather_idle, commit_idle, commit_busy, stream_idle, stream_busy;
};

struct trainer {
    struct gradientd_run *run;
    int64_t step; // of the last one
};

struct scene {
    struct bench_daemon daemon;
    struct bench_model model;
    struct stream_peer peer;
    struct trainer alone, gathering; // copies with one thread, and with two
    uint8_t *warm;                   // memory like the slots', for the plain copy ...
    uint32_t warm_slot;              // ... which takes them in turn, as a trainer does
};

static void time_copy(struct scene *scene, struct bench_series *series) {
    uint8_t *slot = scene->warm + scene->warm_slot * scene->model.buffer_bytes;
    scene->warm_slot = (scene->warm_slot + 1) % SLOTS;
    double start = bench_now();
    for (uint32_t i = 0; i < scene->model.n_groups; i++) {
        uint64_t at = (uint64_t)((const uint8_t *)scene->model.gradients[i] - scene->model.buffer);
        memcpy(slot + at, scene->model.gradients[i], scene->model.groups[i].numel * sizeof(float));
    }
    bench_series_add(series, bench_now() - start);
}

static void time_submit(struct trainer *trainer, const struct bench_model *model, struct bench_series *series) {
    double start = bench_now();
    bench_submit(trainer->run, model, ++trainer->step);
    bench_series_add(series, bench_now() - start);
}

// The time between acquire and commit is the trainer's own: it computes there.
static void time_commit(struct trainer *trainer, struct bench_series *series) {
    static const double rate = 1e-3;
    double start = bench_now();
    float *slot = gradientd_acquire(trainer->run);
    double acquired = bench_now();
    if (!slot)
        bench_fail("no slot: %s", gradientd_last_error(trainer->run));
    struct gradientd_step step = {.step = ++trainer->step, .learning_rates = &rate};
    double committing = bench_now();
    if (gradientd_commit(trainer->run, &step, NULL) != GRADIENTD_OK)
        bench_fail("a step was not taken: %s", gradientd_last_error(trainer->run));
    bench_series_add(series, bench_now() - committing + acquired - start);
}

static void time_streams(struct scene *scene, struct stalls *stalls) {
    double start = bench_now();
    stream_step(&scene->peer, &scene->model);
    bench_series_add(&stalls->stream_idle, bench_now() - start);
    stream_wait(&scene->peer);
    start = bench_now();
    stream_step(&scene->peer, &scene->model);
    bench_series_add(&stalls->stream_busy, bench_now() - start);
    for (int i = 0; i < 3; i++) // analysed, read, analysed
        stream_wait(&scene->peer);
}

static void repeat(struct scene *scene, struct stalls *stalls) {
    bench_daemon_wait_idle(&scene->daemon);
    time_copy(scene, &stalls->copy);
    time_submit(&scene->alone, &scene->model, &stalls->submit_idle);
    time_submit(&scene->alone, &scene->model, &stalls->submit_busy);
    bench_daemon_wait_idle(&scene->daemon);
    time_submit(&scene->gathering, &scene->model, &stalls->gather_idle);
    bench_daemon_wait_idle(&scene->daemon);
    time_commit(&scene->alone, &stalls->commit_idle);
    time_commit(&scene->alone, &stalls->commit_busy);
    bench_daemon_wait_idle(&scene->daemon);
    time_streams(scene, stalls);
}

static void open_scene(struct scene *scene, const struct bench_settings *settings) {
    *scene = (struct scene){.warm = NULL};
    bench_model_init(&scene->model, settings->elements, (uint32_t)(settings->elements / TENSOR_ELEMS), sizeof(float));
    stream_peer_start(&scene->peer, settings->elements);
    bench_daemon_start(&scene->daemon, settings);
    struct gradientd_options options = bench_options(&scene->model, &scene->daemon, "one");
    scene->alone.run = bench_open(&options);
    options.run = "two";
    options.copy_threads = 2;
    scene->gathering.run = bench_open(&options);
    scene->warm = mmap(NULL, SLOTS * scene->model.buffer_bytes, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (scene->warm == MAP_FAILED)
        bench_fail("out of memory");
}

static void close_scene(struct scene *scene) {
    bench_close(scene->alone.run);
    bench_close(scene->gathering.run);
    bench_daemon_stop(&scene->daemon);
    stream_peer_stop(&scene->peer);
    munmap(scene->warm, SLOTS * scene->model.buffer_bytes);
    bench_model_deinit(&scene->model);
}

static void add_ratio(struct bench_report *report, const char *name, const struct bench_series *a,
                      const struct bench_series *b, const char *unit, struct bench_goal goal) {
    struct bench_series ratio = bench_series_ratio(a, b);
    bench_report_row(report, name, &ratio, unit, goal);
}

static void report_stalls(const struct stalls *stalls, struct bench_report *report) {
    const char *copies = "x memcpy of the same bytes";
    add_ratio(report, "trainer stall, submit, daemon idle", &stalls->submit_idle, &stalls->copy, copies,
              BENCH_AT_MOST(0.65));
    add_ratio(report, "trainer stall, submit, daemon busy", &stalls->submit_busy, &stalls->copy, copies,
              BENCH_AT_MOST(1.15));
    add_ratio(report, "trainer stall, submit, 2 copy threads, daemon idle", &stalls->gather_idle, &stalls->copy, copies,
              BENCH_LESS);
    struct bench_series commit = bench_series_in_units(&stalls->commit_idle, 1e-6),
                        busy = bench_series_in_units(&stalls->commit_busy, 1e-6);
    bench_report_row(report, "trainer stall, gradients in the slot, daemon idle", &commit, "us", BENCH_AT_MOST(50));
    bench_report_row(report, "trainer stall, gradients in the slot, daemon busy", &busy, "us", BENCH_AT_MOST(50));
    add_ratio(report, "plain socket stream / submit, idle", &stalls->stream_idle, &stalls->submit_idle, "times less",
              BENCH_AT_LEAST(3));
    add_ratio(report, "plain socket stream / submit, busy", &stalls->stream_busy, &stalls->submit_busy, "times less",
              BENCH_AT_LEAST(5));
    struct bench_series copy = bench_series_in_units(&stalls->copy, 1e-3),
                        submit = bench_series_in_units(&stalls->submit_idle, 1e-3);
    bench_report_row(report, "memcpy of the gradient, tensor by tensor", &copy, "ms", BENCH_LESS);
    bench_report_row(report, "submit, daemon idle", &submit, "ms", BENCH_LESS);
}

void bench_stalls(const struct bench_settings *settings, struct bench_report *report) {
    enum { WARM_UP = 4 }; // so that every slot's pages are mapped on both sides
    static struct stalls stalls, cold;
    struct scene scene;

    open_scene(&scene, settings);
    for (int i = 0; i < WARM_UP; i++)
        repeat(&scene, &cold);
    for (size_t i = 0; i < settings->repetitions; i++)
        repeat(&scene, &stalls);
    close_scene(&scene);
    report_stalls(&stalls, report);
}
