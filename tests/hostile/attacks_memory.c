// What a client shares with the daemon changes while the daemon works on it: that spoils its own numbers, no more.
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gradientd/protocol.h"
#include "hostile.h"
#include "scratch.h"

enum {
    NUMEL = 200000, // so many that the daemon is at work for most of the time
    PAGE = 4096,
    SPOILS_A_LOOK = 16, // between two looks whether it is over
};

static const double ANSWER_SECONDS = 0.05; // whether one comes depends on what was spoilt

// An attached run whose shared things are spoilt by a thread.
struct spoiler {
    struct raw_client client;
    int event_file;
    uint64_t random;
    void (*spoil)(struct spoiler *spoiler);
    _Atomic bool over;
    pthread_t thread;
};

// ---- a run that has everything in it

static void open_large(struct raw_client *client) {
    struct raw_open_run open_run;
    raw_open_run_init(&open_run);
    raw_open_run_add_group(&open_run, "large", 5, NUMEL, 0, 0);
    open_run.optimizer.rule = GRADIENTD__RULE__ADAM;
    open_run.parameter_group.has_beta2 = open_run.parameter_group.has_eps = true;
    open_run.parameter_group.beta2 = 0.99;
    open_run.parameter_group.eps = 1e-8;
    raw_client_send_open_run(client, &open_run);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_LAYOUT);
    client->total_bytes = message->layout->total_bytes;
    client->slots = message->layout->streams[0]->slots;
    client->waiting_offset = message->layout->waiting_offset;
    client->commits_offset = message->layout->commits_offset;
    gradientd__daemon_message__free_unpacked(message, NULL);
}

// Keeps both descriptors, whose descriptions the daemon shares.
static void attach(struct spoiler *spoiler, const char *event_path) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    struct raw_client *client = &spoiler->client;
    client->memory_fd = raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS);
    client->memory = mmap(NULL, client->total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, client->memory_fd, 0);
    cr_assert_neq((void *)client->memory, MAP_FAILED);
    spoiler->event_file = open(event_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(spoiler->event_file, 0);
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    raw_client_send_attach(client, &attach, (int[]){client->memory_fd, spoiler->event_file}, 2);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED);
    gradientd__daemon_message__free_unpacked(message, NULL);
}

static void *spoil_on(void *context) {
    struct spoiler *spoiler = context;
    while (!spoiler->over)
        for (int i = 0; i < SPOILS_A_LOOK; i++)
            spoiler->spoil(spoiler);
    return NULL;
}

static void begin(struct attacker *attacker, struct spoiler *spoiler, void (*spoil)(struct spoiler *spoiler)) {
    *spoiler = (struct spoiler){.spoil = spoil, .random = stress_random(&attacker->random)};
    spoiler->client = attacker_connect(attacker, RAW_WELCOME);
    open_large(&spoiler->client);
    attach(spoiler, attacker->event_path);
    cr_assert_eq(pthread_create(&spoiler->thread, NULL, spoil_on, spoiler), 0);
}

static void end(struct spoiler *spoiler) {
    spoiler->over = true;
    pthread_join(spoiler->thread, NULL);
    fcntl(spoiler->event_file, F_SETFL, 0); // the daemon tries on until the file can be written
    close(spoiler->event_file);
    raw_client_close(&spoiler->client);
}

// Sends steps until the time is over or the run is refused; a slot is used again when the daemon says that it has
// committed, or does not say so.
static void train(struct attacker *attacker, struct spoiler *spoiler) {
    struct raw_client *client = &spoiler->client;
    for (uint32_t n = 1; attacker_goes_on(attacker) && !attacker_is_dropped(client); n++) {
        struct raw_snapshot snapshot;
        raw_snapshot_init(&snapshot, n, n, (n - 1) % client->slots);
        snapshot.message.n_scalars = 1;
        raw_client_wait(client);
        raw_client_send_snapshot(client, &snapshot);
        if (scratch_wait_readable(client->fd, ANSWER_SECONDS))
            gradientd__daemon_message__free_unpacked(raw_client_receive_any(client), NULL); // an Alert may be all
        attacker_did(attacker, 1);
    }
}

static void train_spoilt(struct attacker *attacker, void (*spoil)(struct spoiler *spoiler)) {
    while (attacker_goes_on(attacker)) {
        struct spoiler spoiler;
        begin(attacker, &spoiler, spoil);
        train(attacker, &spoiler);
        end(&spoiler);
    }
}

// ---- what is spoilt

// Not a function that a sanitizer or the compiler looks at: the race is meant.
static void write_word(struct spoiler *spoiler, uint64_t offset, uint32_t word) {
    _Atomic uint32_t *at = (void *)(spoiler->client.memory + offset / 4 * 4);
    atomic_store_explicit(at, word, memory_order_relaxed);
}

static uint32_t odd_word(uint64_t *random) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-45f, -0.0f};
    uint32_t word = stress_random_below(random, UINT32_MAX), kind = stress_random_below(random, 10);
    if (kind < sizeof(odd) / sizeof(odd[0]))
        memcpy(&word, &odd[kind], sizeof(word));
    return kind == 6 ? 0 : kind == 7 ? UINT32_MAX : kind == 8 ? word % 64 : word;
}

// A word anywhere, or in the header, the words and the state at the start, or a whole page.
static void spoil_words(struct spoiler *spoiler) {
    uint64_t bytes = spoiler->client.total_bytes;
    uint32_t kind = stress_random_below(&spoiler->random, 64);
    uint64_t within = kind < 40 ? bytes < 1 << 20 ? bytes : 1 << 20 : kind < 50 ? 4 * PAGE : bytes;
    uint64_t at = stress_random(&spoiler->random) % within;
    uint32_t word = odd_word(&spoiler->random);
    if (kind > 0)
        write_word(spoiler, at, word);
    for (uint64_t i = 0; kind == 0 && i < PAGE; i += sizeof(word))
        write_word(spoiler, at / PAGE * PAGE + i, word);
}

static void spoil_with_holes(struct spoiler *spoiler) {
    uint64_t pages = spoiler->client.total_bytes / PAGE;
    uint64_t first = stress_random(&spoiler->random) % pages;
    uint64_t count = 1 + stress_random_below(&spoiler->random, 64) / 16 * pages / 4;
    count = count < pages - first ? count : pages - first;
    cr_assert_eq(fallocate(spoiler->client.memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * PAGE),
                           (off_t)(count * PAGE)),
                 0);
}

// The seals that keep the daemon from a signal stay what they are.
static void spoil_seals(struct spoiler *spoiler) {
    int fd = spoiler->client.memory_fd;
    cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
    cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0 && errno == EPERM);
    cr_assert(ftruncate(fd, 0) < 0 && errno == EPERM);
    cr_assert(ftruncate(fd, (off_t)spoiler->client.total_bytes * 2) < 0 && errno == EPERM);
}

// The event file is cut, made long, locked, written over, and its description gets other flags.
static void spoil_file(struct spoiler *spoiler) {
    static const int flags[] = {0, O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT, O_APPEND | O_DIRECT, O_NOATIME};
    int fd = spoiler->event_file, kind = (int)stress_random_below(&spoiler->random, 6);
    off_t at = (off_t)stress_random_below(&spoiler->random, 1 << 20);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (kind == 0)
        (void)!ftruncate(fd, 0);
    else if (kind == 1)
        (void)!ftruncate(fd, at << 12);
    else if (kind == 2)
        (void)!pwrite(fd, &whole, sizeof(whole), at);
    else if (kind == 3)
        (void)!fcntl(fd, F_SETLK, &whole);
    else if (kind == 4)
        (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, at);
    else
        (void)!fcntl(fd, F_SETFL, flags[stress_random_below(&spoiler->random, sizeof(flags) / sizeof(flags[0]))]);
}

ATTACK(rewriting) {
    train_spoilt(attacker, spoil_words);
}

ATTACK(punching) {
    train_spoilt(attacker, spoil_with_holes);
}

ATTACK(sealing) {
    train_spoilt(attacker, spoil_seals);
}

ATTACK(event_file) {
    train_spoilt(attacker, spoil_file);
}

static const struct attack memory[] = {
    {"rewriting", rewriting, .attackers = 3, .options = attacker_room},
    {"punching", punching, .attackers = 2, .options = attacker_room},
    {"sealing", sealing, .attackers = 2, .options = attacker_room},
    {"event_file", event_file, .attackers = 3, .options = attacker_room},
};

struct attacks attacks_memory(void) {
    return ATTACKS(memory);
}
