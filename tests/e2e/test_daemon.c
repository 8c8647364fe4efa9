// Clients that break the protocol: each gets an Error that names the field and loses its connection, while a healthy
// run on the same daemon goes on as if nothing had happened, and nothing is left behind.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bytes.h"
#include "daemon_process.h"
#include "event_values.h"
#include "gradientd/protocol.h"
#include "offences.h"
#include "raw_client.h"
#include "scratch.h"
#include "trainer.h"

static char directory[SCRATCH_PATH_BYTES];
static char event_path[SCRATCH_PATH_BYTES + 16]; // of the raw clients' runs
static struct daemon_process daemon_process;

static void set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/raw.events", directory);
    daemon_process_start(&daemon_process, directory);
}

static void tear_down(void) {
    daemon_process_stop(&daemon_process);
    scratch_remove(directory);
}

TestSuite(daemon, .init = set_up, .fini = tear_down, .timeout = 120);

// ---- offences

static void expect_end(struct raw_client *client, const char *name) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert_null(message, "%s: message %d after the last one", name, message ? (int)message->message_case : 0);
}

// The next message that is no Released and no Attached.
static Gradientd__DaemonMessage *receive_error(struct raw_client *client, const char *name) {
    for (;;) {
        Gradientd__DaemonMessage *message = raw_client_receive(client);
        cr_assert(message, "%s: the connection ended without an Error", name);
        if (message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR)
            return message;
        cr_assert(message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ATTACHED ||
                      message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED,
                  "%s: message %d", name, (int)message->message_case);
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
}

static void commit_offence(const struct offence *offence) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, offence->stage, event_path);
    offence->commit(&client);
    Gradientd__DaemonMessage *message = receive_error(&client, offence->name);
    cr_assert_eq(message->error->code, offence->code, "%s: code %d: %s", offence->name, (int)message->error->code,
                 message->error->text);
    cr_assert_str_eq(message->error->field, offence->field, "%s: field %s: %s", offence->name, message->error->field,
                     message->error->text);
    cr_assert(strstr(message->error->text, offence->says), "%s: \"%s\" does not say \"%s\"", offence->name,
              message->error->text, offence->says);
    gradientd__daemon_message__free_unpacked(message, NULL);
    expect_end(&client, offence->name);
    raw_client_close(&client);
}

// Trains a run, with an offence of another client after each step where there are any.
static void train_among(const char *run_name, struct offences offences, size_t steps, char path[512]) {
    struct trainer_warnings warnings;
    struct gradientd_options options = trainer_options(daemon_process.socket, directory, run_name, &warnings);
    struct gradientd_run *run = trainer_open(&options);
    snprintf(path, 512, "%s", gradientd_event_path(run));
    size_t fds = scratch_count_fds(daemon_process.pid);
    for (size_t i = 0; i < steps; i++) {
        trainer_submit_steps(run, (int64_t)i + 1, (int64_t)i + 1);
        if (i < offences.n_offences)
            commit_offence(&offences.offences[i]);
    }
    daemon_process_expect_fds(&daemon_process, fds);
    trainer_close(run);
    cr_assert_eq(warnings.count, 0, "%s", warnings.text);
}

static void expect_harmless(struct offences offences) {
    char disturbed[512], alone[512];
    size_t fds = scratch_count_fds(daemon_process.pid);
    train_among("disturbed", offences, offences.n_offences, disturbed);
    daemon_process_expect_fds(&daemon_process, fds);
    train_among("alone", (struct offences){0}, offences.n_offences, alone);
    scratch_expect_same(disturbed, alone);
    daemon_process_expect_fds(&daemon_process, fds);
}

Test(daemon, refuses_wrong_openings) {
    expect_harmless(offences_opening());
}

Test(daemon, refuses_wrong_attachments) {
    expect_harmless(offences_attaching(directory));
}

Test(daemon, refuses_wrong_submissions) {
    expect_harmless(offences_running(directory));
}

Test(daemon, refuses_wrong_payloads) {
    expect_harmless(offences_inline());
}

// Attaches `memory`, which stays open until the daemon has answered.
static void expect_memory_refused_consume(struct raw_client *client, int memory, Gradientd__ErrorCode code,
                                          const char *says) {
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    attach.has_memory = attach.memory = attach.has_event_file = attach.event_file = true;
    int fds[2] = {memory, open(event_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)};
    raw_client_send_attach(client, &attach, fds, 2);
    Gradientd__DaemonMessage *message = receive_error(client, says);
    cr_assert_eq(message->error->code, code, "%s", message->error->text);
    cr_assert_str_eq(message->error->field, "memory");
    cr_assert(strstr(message->error->text, says), "%s", message->error->text);
    gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(client);
    close(fds[0]);
    close(fds[1]);
}

Test(daemon, refuses_memory_of_another_user) {
    if (geteuid() != 0)
        cr_skip("only root can give a file away");
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    int memory = raw_memory_new(client.total_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    cr_assert_eq(fchown(memory, 65534, 65534), 0);
    expect_memory_refused_consume(&client, memory, GRADIENTD__ERROR_CODE__MEMORY,
                                  "memory belongs to uid 65534, the client is uid 0");
}

Test(daemon, refuses_memory_that_another_process_has_locked) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    int memory = raw_memory_new(client.total_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    cr_assert_eq(fcntl(memory, F_SETLK, &whole), 0);
    expect_memory_refused_consume(&client, memory, GRADIENTD__ERROR_CODE__OWNED, "held by another daemon");
}

Test(daemon, refuses_memory_of_huge_pages) {
    int memory = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    if (memory < 0)
        cr_skip("this kernel has no huge pages");
    cr_assert_eq(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    struct raw_client client = raw_client_connect(daemon_process.socket);
    raw_client_advance(&client, RAW_LAID_OUT, NULL);
    expect_memory_refused_consume(&client, memory, GRADIENTD__ERROR_CODE__MEMORY, "hugetlbfs");
}

// ---- what a client sees in the memory

static uint64_t slot_word(const struct raw_client *client, uint32_t slot) {
    return raw_client_load_u64(client, client->slot_words_offset + slot * sizeof(uint64_t));
}

// Sends step n in slot n - 1 as message n and waits for its commit.
static void commit_step(struct raw_client *client, uint32_t n) {
    struct raw_snapshot snapshot;
    raw_snapshot_init(&snapshot, n, n, n - 1);
    raw_client_wait(client);
    raw_client_send_snapshot(client, &snapshot);
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    cr_assert_eq(message->released->committed_sequence, n);
    gradientd__daemon_message__free_unpacked(message, NULL);
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
    gradientd__daemon_message__free_unpacked(receive_error(&client, "Hello"), NULL);
    expect_end(&client, "Hello");
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
    gradientd__daemon_message__free_unpacked(receive_error(&client, "again"), NULL);
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
    expect_end(&client, "CloseRun");
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
    int fds[2] = {raw_memory_new(client->total_bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
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
