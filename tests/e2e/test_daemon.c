// What a client sees of the daemon beside its files: words in shared memory, answers, the ends of connections.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bytes.h"
#include "event_values.h"
#include "fixture.h"
#include "gradientd/protocol.h"
#include "raw_client.h"
#include "trainer.h"

TestSuite(daemon, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

// ---- what a client sees in the memory

static uint64_t slot_word(const struct raw_client *client, uint32_t slot) {
    return raw_client_load_u64(client, client->slot_words_offset + slot * sizeof(uint64_t));
}

static void commit_step(struct raw_client *client, uint32_t n) {
    raw_client_commit_step(client, n);
    cr_assert_eq(raw_client_load_u32(client, client->waiting_offset), 0);
    cr_assert_eq(raw_client_load_u64(client, client->commits_offset), n);
}

Test(daemon, publishes_free_slots_and_answers_who_waits) {
    enum { LAGS = 5, SLOTS = LAGS + 1 + 2 }; // the defaults
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    cr_assert_eq(client.slots, SLOTS);
    for (uint32_t n = 1; n <= LAGS; n++) {
        commit_step(&client, n);
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            cr_assert_eq(slot_word(&client, slot), slot < n ? slot : n, "slot %u after %u steps", slot, n);
    }
    commit_step(&client, LAGS + 1); // the first step is LAGS steps old: no lag needs it any more
    cr_assert_eq(slot_word(&client, 0), LAGS + 1);
    cr_assert_eq(slot_word(&client, 1), 1);
    cr_assert_eq(raw_client_load_u32(&client, client.notices_offset), 0);
    raw_client_close(&client);
}

Test(daemon, raises_the_notices_word_with_an_error) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    raw_client_say_hello(&client, GRADIENTD_PROTOCOL_VERSION);
    gradientd__daemon_message__free_unpacked(raw_client_receive_error(&client, "Hello"), NULL);
    raw_client_expect_end(&client, "Hello");
    cr_assert_eq(raw_client_load_u32(&client, client.notices_offset), 1);
    raw_client_close(&client);
}

// ---- runs that end early

Test(daemon, ends_the_file_of_a_refused_run) {
    struct raw_snapshot snapshot;
    struct event_values values;
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(&client, &snapshot);
    raw_client_send_snapshot(&client, &snapshot); // the same sequence again
    gradientd__daemon_message__free_unpacked(raw_client_receive_error(&client, "again"), NULL);
    raw_client_close(&client);
    cr_assert(scratch_wait_until(event_values_ended, event_path, 20.0));
    event_values_read(event_path, &values);
    cr_assert(event_values_find(&values, "gradient/norm", 1), "what came before the fault is lost");
    cr_assert_eq(values.stops, 1);
    event_values_free(&values);
}

Test(daemon, closes_after_the_last_commit_is_in_the_file) {
    struct raw_snapshot snapshot;
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_ATTACHED, event_path);
    raw_snapshot_init(&snapshot, 1, 1, 0);
    raw_client_send_snapshot(&client, &snapshot);
    raw_client_send_close_run(&client, 2, GRADIENTD__OUTCOME__SUCCESS);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    cr_assert_eq(message->released->committed_sequence, 2);
    cr_assert(event_values_ended(event_path), "Released came before the end of the file");
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_expect_end(&client, "CloseRun");
    raw_client_close(&client);
}

Test(daemon, takes_frames_in_any_pieces) {
    static const uint8_t hello[] = {4, 0, 0, 0, 0, 0, 0, 0, 1 << 3 | 2, 2, 1 << 3, 1};
    struct raw_client client = raw_client_connect(daemon_process.socket);
    for (size_t i = 0; i < sizeof(hello); i++)
        raw_client_send_bytes(&client, hello + i, 1, NULL, 0);
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_WELCOME);
    cr_assert_eq(message->welcome->protocol_version, GRADIENTD_PROTOCOL_VERSION);
    cr_assert_eq(message->welcome->layout_version, GRADIENTD_LAYOUT_VERSION);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
}

// ---- connections that go half-way

static void send_half_open_run(struct raw_client *client) {
    uint8_t header[GRADIENTD_FRAME_HEADER_BYTES + 1000] = {0};
    gd_write_u32le(header, 100);
    gd_write_u32le(header + 4, GRADIENTD_TABLE_BYTES_MAX);
    raw_client_send_bytes(client, header, sizeof(header), NULL, 0);
}

// The descriptors are there, the message that declares them only begins.
static void send_half_attach(struct raw_client *client) {
    static const uint8_t half[] = {8, 0, 0};
    int fds[2] = {raw_memory_new(client->total_bytes, RAW_MEMORY_SEALS),
                  open(event_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    raw_client_send_bytes(client, half, sizeof(half), fds, 2);
    close(fds[0]);
    close(fds[1]);
}

static void send_half_snapshot(struct raw_client *client) {
    static const uint8_t half[] = {60, 0, 0, 0, 0, 0, 0, 0, 4 << 3 | 2, 58};
    raw_client_send_bytes(client, half, sizeof(half), NULL, 0);
}

static void send_half_payload(struct raw_client *client) {
    struct raw_snapshot snapshot;
    uint8_t elements[RAW_NUMEL * sizeof(float)] = {0x78, 0x9c}; // begins a zlib stream
    size_t bytes;
    for (int deflated = 0; deflated <= 1; deflated++) {
        raw_snapshot_init(&snapshot, 1 + (uint64_t)deflated, 1 + deflated, 0);
        raw_snapshot_make_inline(&snapshot, sizeof(elements), deflated);
        uint8_t *frame = raw_inline_frame(&snapshot, elements, sizeof(elements), &bytes);
        raw_client_send_bytes(client, frame, deflated ? bytes - sizeof(elements) + 2 : bytes, NULL, 0);
        free(frame);
    }
}

static void send_nothing(struct raw_client *client) {
    (void)client;
}

Test(daemon, keeps_nothing_of_connections_that_end_half_way) {
    enum { CONNECTIONS = 200 };
    static const struct {
        enum raw_stage stage;
        void (*send)(struct raw_client *client);
    } ways[] = {
        {RAW_CONNECTED, send_nothing},      {RAW_WELCOME, send_nothing},      {RAW_WELCOME, send_half_open_run},
        {RAW_LAID_OUT, send_nothing},       {RAW_LAID_OUT, send_half_attach}, {RAW_ATTACHED, send_nothing},
        {RAW_ATTACHED, send_half_snapshot}, {RAW_INLINE, send_nothing},       {RAW_INLINE, send_half_payload},
    };
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct raw_client client = raw_client_connect(daemon_process.socket);
        size_t way = (size_t)i % (sizeof(ways) / sizeof(ways[0]));
        raw_client_advance(&client, ways[way].stage, event_path);
        ways[way].send(&client);
        raw_client_close(&client);
    }
    daemon_process_expect_fds(&daemon_process, fds);
}

Test(daemon, takes_no_processor_from_whoever_wakes_it) {
    cr_expect_eq(sched_getscheduler(daemon_process.pid), SCHED_BATCH);
}

Test(daemon, serves_many_at_once) {
    enum { CONNECTIONS = 40 };
    struct raw_client clients[CONNECTIONS];
    char path[SCRATCH_PATH_BYTES + 32];
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (int i = 0; i < CONNECTIONS; i++) {
        snprintf(path, sizeof(path), "%s/%d.events", directory, i);
        clients[i] = raw_client_connect(daemon_process.socket);
        raw_client_advance(&clients[i], RAW_ATTACHED, path);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        raw_client_close(&clients[i]);
    for (int i = 0; i < CONNECTIONS; i++) {
        snprintf(path, sizeof(path), "%s/%d.events", directory, i);
        cr_assert(scratch_wait_until(event_values_ended, path, 20.0), "%s is not ended", path);
    }
    daemon_process_expect_fds(&daemon_process, fds);
}

// ---- its end

// What comes while it ends cuts off nothing.
Test(daemon, asked_again_and_again_it_ends_as_when_asked_once) {
    for (int times = 0; times < 20; times++) {
        while (!scratch_wait_readable(daemon_process.pidfd, 0.0))
            cr_assert_eq(kill(daemon_process.pid, SIGTERM), 0);
        int status = daemon_process_wait_end(&daemon_process);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS, "the wait status is 0x%x",
                  (unsigned)status);
        daemon_process_start(&daemon_process, directory);
    }
}
