// Lets many trainers at once loose on a daemon: threads and processes, sizes, rules and transports, some of them
// killed, some of them breaking the protocol, one client that asks for Status all the time, and SIGTERM in the middle
// of runs at the end. Whoever runs it builds the daemon or this program with a sanitizer, or puts a checker before the
// daemon's program.
//
//     stress [--seed N] [--trainers N] [--runs N] [--seconds N] -- DAEMON [ARGUMENT...]
//
// starts DAEMON with --socket and --workers added, and ends well only if the daemon does (exit status 0), if every run
// that was closed has its whole event file, and if runs that submit the same have the same file, whatever ran beside
// them and however the elements came.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../tools/remove_tree.h"
#include "gradientd/client.h"
#include "random.h"
#include "stress.h"

extern char **environ;

enum {
    TRAINERS_MAX = 64,
    DAEMON_ARGUMENTS_MAX = 64,
    PATIENCE_S = 120, // for one answer of a daemon that a checker slows down; nothing waits this long that goes well
    LAST_TRAINERS = 6,
};

struct stress {
    uint64_t seed;
    uint32_t trainers;
    double seconds; // no run begins later
    char **command;
    char program[512]; // this one
    struct stress_place place;
    pid_t daemon;
    double start;

    struct stress_spec *specs[STRESS_SPECS];
    _Atomic uint64_t hashes[STRESS_SPECS]; // of the first file, 0: none yet
    _Atomic int left;                      // runs still to begin
    _Atomic uint32_t done, killed, broken;
    _Atomic bool failed;
    _Atomic bool trained; // all of them
};

struct child {
    pid_t pid;
    int output;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void pause_us(uint32_t microseconds) {
    struct timespec pause = {.tv_nsec = (long)microseconds * 1000};
    nanosleep(&pause, NULL);
}

// ---- processes

// Waits for its end; its wait status, or -1 where it does not come. (valgrind knows no pidfd to wait with.)
static int reap(pid_t pid) {
    int status;
    for (double start = now(); now() - start < PATIENCE_S; pause_us(1000))
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
    return stress_fail("process %d does not end", pid);
}

// This program again, as one of the bad trainers.
static int start_child(const struct stress *stress, const char *what, uint64_t seed, struct child *ret_child) {
    char number[24], program[] = "stress", option[16];
    snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
    snprintf(option, sizeof(option), "%s", what);
    char *arguments[] = {
        program, option, (char *)(uintptr_t)stress->place.socket, (char *)(uintptr_t)stress->place.logdir,
        number,  NULL};
    int sockets[2];
    posix_spawn_file_actions_t actions;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return stress_fail("socketpair: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], STDOUT_FILENO);
    int result = posix_spawn(&ret_child->pid, stress->program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(sockets[1]);
    ret_child->output = sockets[0];
    if (result != 0)
        close(sockets[0]);
    return result == 0 ? 0 : stress_fail("%s: %s", stress->program, strerror(result));
}

// Waits until it trains.
static int wait_training(const struct child *child) {
    struct pollfd output = {.fd = child->output, .events = POLLIN};
    char byte;
    int ready;
    while ((ready = poll(&output, 1, PATIENCE_S * 1000)) < 0 && errno == EINTR)
        ;
    if (ready <= 0)
        return stress_fail("a trainer has not begun for %d s", PATIENCE_S);
    return recv(child->output, &byte, 1, 0) == 1 ? 0 : stress_fail("a trainer ended before it trained");
}

static int kill_child(const struct child *child) {
    close(child->output);
    kill(child->pid, SIGKILL);
    int status = reap(child->pid);
    return WIFSIGNALED(status) ? 0 : stress_fail("a trainer ended with 0x%x before it was killed", (unsigned)status);
}

// ---- trainers

static int train(struct stress *stress, uint64_t *random, int index) {
    static const enum gradientd_transport transports[] = {GRADIENTD_SHARED_MEMORY, GRADIENTD_SHARED_MEMORY,
                                                          GRADIENTD_INLINE, GRADIENTD_INLINE_DEFLATED};
    char name[32];
    snprintf(name, sizeof(name), "run%d", index);
    uint32_t number = (uint32_t)index % STRESS_SPECS;
    struct stress_manner manner = {.name = name,
                                   .transport = transports[stress_random_below(random, 4)],
                                   .in_place = stress_random_below(random, 2) == 0};
    uint64_t hash, first = 0;
    if (stress_run(&stress->place, stress->specs[number], &manner, &hash) < 0)
        return stress_fail("run %d of spec %u failed", index, number);
    if (!atomic_compare_exchange_strong(&stress->hashes[number], &first, hash) && first != hash)
        return stress_fail("run %d of spec %u (transport %d, in place %d) has another file than the first of them",
                           index, number, manner.transport, manner.in_place);
    atomic_fetch_add(&stress->done, 1);
    return 0;
}

// Anywhere in a step: hence the pause.
static int train_and_kill(struct stress *stress, uint64_t *random) {
    struct child child;
    if (start_child(stress, "--endless", stress_random(random), &child) < 0)
        return -1;
    int result = wait_training(&child);
    pause_us(stress_random_below(random, 20000));
    if (kill_child(&child) < 0)
        result = -1;
    atomic_fetch_add(&stress->killed, 1);
    return result;
}

static int break_protocol(struct stress *stress, uint64_t *random) {
    struct child child;
    uint64_t seed = stress_random(random);
    if (start_child(stress, "--broken", seed, &child) < 0)
        return -1;
    close(child.output);
    int status = reap(child.pid);
    atomic_fetch_add(&stress->broken, 1);
    return status == 0 ? 0 : stress_fail("--broken %llu ended with 0x%x", (unsigned long long)seed, (unsigned)status);
}

static void *run_trainer(void *context) {
    struct stress *stress = context;
    while (!stress->failed && now() - stress->start < stress->seconds) {
        int index = atomic_fetch_sub(&stress->left, 1);
        if (index <= 0)
            break;
        uint64_t random = stress->seed * 1000003 + (uint64_t)index;
        uint32_t kind = stress_random_below(&random, 8);
        int result = kind == 0   ? train_and_kill(stress, &random)
                     : kind == 1 ? break_protocol(stress, &random)
                                 : train(stress, &random, index);
        if (result < 0)
            stress->failed = true;
    }
    return NULL;
}

static void *watch(void *context) {
    struct stress *stress = context;
    if (stress_watch(&stress->place, &stress->trained) < 0)
        stress->failed = true;
    return NULL;
}

static void run_trainers(struct stress *stress) {
    pthread_t threads[TRAINERS_MAX], watcher;
    uint32_t started = 0;
    bool watched = pthread_create(&watcher, NULL, watch, stress) == 0;
    while (started < stress->trainers && pthread_create(&threads[started], NULL, run_trainer, stress) == 0)
        started++;
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    stress->trained = true;
    if (watched)
        pthread_join(watcher, NULL);
    if (started < stress->trainers || !watched)
        stress->failed = true;
}

// ---- the daemon

static int start_daemon(struct stress *stress) {
    char *arguments[DAEMON_ARGUMENTS_MAX + 5];
    char socket_option[] = "--socket", workers_option[] = "--workers", workers[] = "3";
    size_t count = 0;
    while (stress->command[count] && count < DAEMON_ARGUMENTS_MAX) {
        arguments[count] = stress->command[count];
        count++;
    }
    arguments[count++] = socket_option;
    arguments[count++] = stress->place.socket;
    arguments[count++] = workers_option;
    arguments[count++] = workers;
    arguments[count] = NULL;

    char log[STRESS_PATH_BYTES + 16];
    snprintf(log, sizeof(log), "%s/daemon.log", stress->place.logdir);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int result = posix_spawnp(&stress->daemon, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return result == 0 ? 0 : stress_fail("%s: %s", arguments[0], strerror(result));
}

// Waits until it takes connections.
static int wait_listening(const struct stress *stress) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", stress->place.socket);
    for (double start = now(); now() - start < PATIENCE_S; pause_us(2000)) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool up = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        close(fd);
        if (up)
            return 0;
        if (waitpid(stress->daemon, NULL, WNOHANG) != 0)
            return stress_fail("the daemon ended at once");
    }
    return stress_fail("the daemon does not listen");
}

// SIGTERM in the middle of runs. The daemon's wait status.
static int stop_daemon(const struct stress *stress) {
    struct child children[LAST_TRAINERS];
    int started = 0, result = 0;
    while (result == 0 && started < LAST_TRAINERS) {
        result = start_child(stress, "--endless", stress->seed + (uint64_t)started, &children[started]);
        started += result == 0;
    }
    for (int i = 0; i < started; i++)
        if (wait_training(&children[i]) < 0)
            result = -1;
    kill(stress->daemon, SIGTERM);
    int status = reap(stress->daemon);
    for (int i = 0; i < started; i++)
        if (kill_child(&children[i]) < 0)
            result = -1;
    return result < 0 ? result : status;
}

// ---- the whole

static void print_log(const struct stress *stress) {
    char path[STRESS_PATH_BYTES + 16], line[1024];
    snprintf(path, sizeof(path), "%s/daemon.log", stress->place.logdir);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        fputs(line, stderr);
    if (file)
        fclose(file);
}

static int run(struct stress *stress) {
    for (uint32_t i = 0; i < STRESS_SPECS; i++)
        if (!(stress->specs[i] = stress_spec_new(stress->seed, i)))
            return stress_fail("no memory");
    if (start_daemon(stress) < 0)
        return -1;
    if (wait_listening(stress) < 0) {
        kill(stress->daemon, SIGKILL);
        return -1;
    }
    stress->start = now();
    run_trainers(stress);
    int status = stop_daemon(stress);
    printf("seed %llu: %u runs, %u killed trainers, %u broken clients in %.1f s\n", (unsigned long long)stress->seed,
           stress->done, stress->killed, stress->broken, now() - stress->start);
    if (status != 0)
        return stress_fail("the daemon's wait status is 0x%x", (unsigned)status);
    return stress->failed ? -1 : 0;
}

static void parse(int argc, char **argv, struct stress *stress) {
    static const struct option known[] = {
        {"seed", required_argument, NULL, 'e'},
        {"trainers", required_argument, NULL, 't'},
        {"runs", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 's'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "+", known, NULL)) != -1;) {
        unsigned long value = optarg ? strtoul(optarg, NULL, 10) : 0;
        if (option == 'e')
            stress->seed = value;
        else if (option == 't' && value > 0 && value <= TRAINERS_MAX)
            stress->trainers = (uint32_t)value;
        else if (option == 'r')
            stress->left = (int)value;
        else if (option == 's')
            stress->seconds = (double)value;
        else
            exit(2);
    }
    stress->command = argv + optind;
    if (optind >= argc) {
        fputs("usage: stress [--seed N] [--trainers N] [--runs N] [--seconds N] -- DAEMON [ARGUMENT...]\n", stderr);
        exit(2);
    }
}

// One of the processes that start_child() starts.
static int run_child(char **argv) {
    struct stress_place place;
    snprintf(place.socket, sizeof(place.socket), "%s", argv[2]);
    snprintf(place.logdir, sizeof(place.logdir), "%s", argv[3]);
    uint64_t seed = strtoull(argv[4], NULL, 10);
    bool endless = strcmp(argv[1], "--endless") == 0;
    return (endless ? stress_train_endlessly(&place, seed) : stress_break_protocol(&place, seed)) < 0;
}

int main(int argc, char **argv) {
    static struct stress stress = {.seed = 1, .trainers = 8, .left = 100000, .seconds = 20.0};
    if (argc == 5 && (strcmp(argv[1], "--endless") == 0 || strcmp(argv[1], "--broken") == 0))
        _exit(run_child(argv)); // with its run open, which would be a leak
    parse(argc, argv, &stress);
    if (readlink("/proc/self/exe", stress.program, sizeof(stress.program) - 1) < 0)
        return 1;
    const char *scratch = getenv("TMPDIR");
    snprintf(stress.place.logdir, sizeof(stress.place.logdir), "%.80s/stress-XXXXXX", scratch ? scratch : "/tmp");
    if (!mkdtemp(stress.place.logdir))
        return 1;
    snprintf(stress.place.socket, sizeof(stress.place.socket), "%.100s/socket", stress.place.logdir);
    int result = run(&stress);
    if (result < 0)
        print_log(&stress);
    for (uint32_t i = 0; i < STRESS_SPECS; i++)
        stress_spec_free(stress.specs[i]);
    remove_tree(stress.place.logdir);
    return result < 0;
}
