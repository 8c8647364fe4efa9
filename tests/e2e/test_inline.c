// Elements that come inline, however they come: the event file is that of the same run through memory, and what has
// arrived is never lost.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "daemon_process.h"
#include "event_values.h"
#include "raw_client.h"
#include "scratch.h"

enum {
    SMALL_NUMEL = 40,
    LARGE_NUMEL = 5000000, // 20 MB, more than all buffers on the way
    MAX_LAG = 2,
    INFLIGHT = 1,
    STEPS = 100, // more than there are slots
};

static char directory[SCRATCH_PATH_BYTES];
static char event_path[SCRATCH_PATH_BYTES + 32], expected_path[SCRATCH_PATH_BYTES + 32];
static struct daemon_process daemon_process;

static void set_up(void) {
    scratch_make(directory);
    snprintf(event_path, sizeof(event_path), "%s/inline.events", directory);
    snprintf(expected_path, sizeof(expected_path), "%s/mapped.events", directory);
    daemon_process_start(&daemon_process, directory);
}

static void tear_down(void) {
    daemon_process_stop(&daemon_process);
    scratch_remove(directory);
}

TestSuite(inline_elements, .init = set_up, .fini = tear_down, .timeout = 120);

// ---- the run

static void open_run_of(uint64_t numel, struct raw_open_run *ret_open_run) {
    raw_open_run_init(ret_open_run);
    raw_open_run_add_group(ret_open_run, "more", 4, numel - RAW_NUMEL, 0, 0);
    ret_open_run->message.has_max_lag = ret_open_run->message.has_inflight = true;
    ret_open_run->message.max_lag = MAX_LAG;
    ret_open_run->message.inflight = INFLIGHT;
    ret_open_run->optimizer.rule = GRADIENTD__RULE__ADAM;
    ret_open_run->parameter_group.has_beta2 = true;
    ret_open_run->parameter_group.beta2 = 0.9;
}

static void write_elements(uint32_t step, uint64_t numel, float *elements) {
    for (uint64_t i = 0; i < numel; i++) {
        uint32_t random = (uint32_t)(step * numel + i) * UINT32_C(2654435761) >> 20;
        elements[i] = random % 3 == 0 ? 0.0f : (float)random - 2000.0f;
    }
}

static float *new_elements(uint32_t step, uint64_t numel) {
    float *elements = malloc(numel * sizeof(float));
    cr_assert(elements);
    write_elements(step, numel, elements);
    return elements;
}

// The frame of step `step`; the caller frees it.
static uint8_t *new_frame(uint32_t step, uint64_t numel, bool deflated, size_t *ret_bytes) {
    struct raw_snapshot snapshot;
    uLongf payload_bytes = numel * sizeof(float);
    float *elements = new_elements(step, numel);
    uint8_t *payload = (uint8_t *)elements;
    if (deflated) {
        payload_bytes = compressBound(payload_bytes);
        payload = malloc(payload_bytes);
        cr_assert(payload &&
                  compress2(payload, &payload_bytes, (const uint8_t *)elements, numel * sizeof(float), 1) == Z_OK);
    }
    raw_snapshot_init(&snapshot, step, step, 0);
    raw_snapshot_make_inline(&snapshot, payload_bytes, deflated);
    uint8_t *frame = raw_inline_frame(&snapshot, payload, payload_bytes, ret_bytes);
    free(payload);
    if (deflated)
        free(elements);
    return frame;
}

static struct raw_client attached_inline(uint64_t numel) {
    struct raw_open_run open_run;
    struct raw_client client = raw_client_connect(daemon_process.socket);
    open_run_of(numel, &open_run);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_attach_inline(&client, &open_run, event_path);
    return client;
}

static void send_step(struct raw_client *client, uint32_t step, uint64_t numel, bool deflated) {
    size_t bytes;
    uint8_t *frame = new_frame(step, numel, deflated, &bytes);
    raw_client_send_bytes(client, frame, bytes, NULL, 0);
    free(frame);
}

// Reads Released after Released, of rising sequences, up to the one of `sequence`. Returns how many they were.
static size_t expect_released(struct raw_client *client, uint64_t sequence) {
    uint64_t last = 0;
    size_t n = 0;
    while (last < sequence) {
        Gradientd__DaemonMessage *message = raw_client_receive(client);
        cr_assert(message, "the connection ended after Released %llu", (unsigned long long)last);
        cr_assert_eq(message->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED, "message %d",
                     (int)message->message_case);
        cr_assert_gt(message->released->committed_sequence, last);
        last = message->released->committed_sequence;
        n++;
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
    cr_assert_eq(last, sequence);
    return n;
}

static void expect_end(struct raw_client *client) {
    cr_assert_null(raw_client_receive(client), "a message after the last one");
    raw_client_close(client);
}

// CloseRun, and the Released that says that the file is whole.
static void close_run(struct raw_client *client, uint32_t steps) {
    raw_client_send_close_run(client, steps + 1, GRADIENTD__OUTCOME__SUCCESS);
    expect_released(client, steps + 1);
    expect_end(client);
}

// Trains the same run through memory, one step after the other, and compares.
static void expect_as_mapped(uint32_t steps, uint64_t numel) {
    struct raw_open_run open_run;
    struct raw_client client = raw_client_connect(daemon_process.socket);
    open_run_of(numel, &open_run);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_attach(&client, &open_run, expected_path);
    for (uint32_t step = 1; step <= steps; step++) {
        struct raw_snapshot snapshot;
        uint32_t slot = step % client.slots;
        void *elements = client.memory + client.slots_offset + slot * client.slot_stride_bytes;
        write_elements(step, numel, elements);
        raw_snapshot_init(&snapshot, step, step, slot);
        raw_client_wait(&client);
        raw_client_send_snapshot(&client, &snapshot);
        expect_released(&client, step);
    }
    close_run(&client, steps);
    scratch_expect_same(event_path, expected_path);
}

// ---- however the elements come

Test(inline_elements, many_steps_sent_at_once) {
    struct raw_client client = attached_inline(SMALL_NUMEL);
    for (uint32_t step = 1; step <= STEPS; step++)
        send_step(&client, step, SMALL_NUMEL, step % 2);
    close_run(&client, STEPS);
    expect_as_mapped(STEPS, SMALL_NUMEL);
}

Test(inline_elements, byte_by_byte) {
    enum { FEW = 6 };
    struct raw_client client = attached_inline(SMALL_NUMEL);
    for (uint32_t step = 1; step <= FEW; step++) {
        size_t bytes;
        uint8_t *frame = new_frame(step, SMALL_NUMEL, step % 2, &bytes);
        for (size_t i = 0; i < bytes; i++)
            raw_client_send_bytes(&client, frame + i, 1, NULL, 0);
        free(frame);
    }
    close_run(&client, FEW);
    expect_as_mapped(FEW, SMALL_NUMEL);
}

Test(inline_elements, payloads_larger_than_all_buffers) {
    enum { FEW = 5 }; // more than there are slots
    struct raw_client client = attached_inline(LARGE_NUMEL);
    for (uint32_t step = 1; step <= FEW; step++)
        send_step(&client, step, LARGE_NUMEL, step % 2);
    close_run(&client, FEW);
    expect_as_mapped(FEW, LARGE_NUMEL);
}

// ---- a client that reads nothing

enum { UNREAD_STEPS = 3000 }; // many times what its socket has room for in answers

static void send_unread(struct raw_client *client) {
    for (uint32_t step = 1; step <= UNREAD_STEPS; step++)
        send_step(client, step, SMALL_NUMEL, false);
}

static bool has_all_steps(const void *context) {
    struct event_values values;
    event_values_read(context, &values);
    size_t n = event_values_count(&values, "gradient/norm");
    event_values_free(&values);
    return n == UNREAD_STEPS;
}

Test(inline_elements, who_reads_late_is_told_of_the_last_commit) {
    struct raw_client client = attached_inline(SMALL_NUMEL);
    send_unread(&client);
    cr_assert(scratch_wait_until(has_all_steps, event_path, 60.0));
    cr_expect_lt(expect_released(&client, UNREAD_STEPS), UNREAD_STEPS / 2, "answers pile up unread");
    close_run(&client, UNREAD_STEPS);
}

Test(inline_elements, who_reads_late_learns_that_the_file_is_whole) {
    struct raw_client client = attached_inline(SMALL_NUMEL);
    send_unread(&client);
    raw_client_send_close_run(&client, UNREAD_STEPS + 1, GRADIENTD__OUTCOME__SUCCESS);
    cr_assert(scratch_wait_until(event_values_ended, event_path, 60.0));
    expect_released(&client, UNREAD_STEPS + 1);
    expect_end(&client);
}

Test(inline_elements, who_reads_late_learns_of_its_fault) {
    struct raw_client client = attached_inline(SMALL_NUMEL);
    send_unread(&client);
    raw_client_say_hello(&client, 1);
    cr_assert(scratch_wait_until(event_values_ended, event_path, 60.0));
    Gradientd__DaemonMessage *message = raw_client_receive(&client);
    while (message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED) {
        gradientd__daemon_message__free_unpacked(message, NULL);
        message = raw_client_receive(&client);
    }
    cr_assert(message && message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR, "the Error is lost");
    gradientd__daemon_message__free_unpacked(message, NULL);
    expect_end(&client);
}

// ---- ends in mid payload

// Sends STEPS steps, and half of one more, to a daemon that takes none of them yet.
static void send_to_frozen_daemon(struct raw_client *client) {
    daemon_process_freeze(&daemon_process);
    for (uint32_t step = 1; step <= STEPS; step++)
        send_step(client, step, SMALL_NUMEL, step % 2);
    size_t bytes;
    uint8_t *frame = new_frame(STEPS + 1, SMALL_NUMEL, false, &bytes);
    raw_client_send_bytes(client, frame, bytes - SMALL_NUMEL * sizeof(float) / 2, NULL, 0);
    free(frame);
}

static void expect_steps_in_file(unsigned stops) {
    struct event_values values;
    event_values_read(event_path, &values);
    cr_expect(values.whole);
    cr_expect_eq(values.stops, stops);
    cr_expect_eq(event_values_count(&values, "gradient/norm"), STEPS);
    cr_expect(event_values_find(&values, "gradient/norm", STEPS));
    event_values_free(&values);
}

Test(inline_elements, what_arrived_before_the_trainer_died_is_in_the_file) {
    struct raw_client client = attached_inline(SMALL_NUMEL);
    send_to_frozen_daemon(&client);
    raw_client_close(&client);
    daemon_process_thaw(&daemon_process);
    cr_assert(scratch_wait_until(event_values_ended, event_path, 20.0));
    expect_steps_in_file(1);
}

static bool has_first_step(const void *context) {
    struct event_values values;
    event_values_read(context, &values);
    bool has = event_values_find(&values, "gradient/norm", 1);
    event_values_free(&values);
    return has;
}

// Its socket ends in an error, for an answer was left unread, with more in it than the daemon reads at once.
Test(inline_elements, what_arrived_before_the_trainer_went_without_a_word_is_in_the_file) {
    enum { NUMEL = 2000, FEW = 15 }; // 120 kB
    struct raw_client client = attached_inline(NUMEL);
    send_step(&client, 1, NUMEL, false);
    cr_assert(scratch_wait_until(has_first_step, event_path, 20.0));
    daemon_process_freeze(&daemon_process);
    for (uint32_t step = 2; step <= FEW; step++)
        send_step(&client, step, NUMEL, false);
    raw_client_close(&client);
    daemon_process_thaw(&daemon_process);
    cr_assert(scratch_wait_until(event_values_ended, event_path, 20.0));
    struct event_values values;
    event_values_read(event_path, &values);
    cr_expect_eq(event_values_count(&values, "gradient/norm"), FEW);
    event_values_free(&values);
}

// A forked child, such as a data loader, holds the socket open, as the test does here. The pidfd tells.
Test(inline_elements, what_arrived_before_the_pidfd_told_is_in_the_file) {
    struct raw_open_run open_run;
    Gradientd__Attach attach = GRADIENTD__ATTACH__INIT;
    struct raw_client client = raw_client_connect(daemon_process.socket);
    pid_t trainer = fork();
    if (trainer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    open_run_of(SMALL_NUMEL, &open_run);
    raw_client_advance(&client, RAW_WELCOME, NULL);
    raw_client_send_open_run(&client, &open_run);
    gradientd__daemon_message__free_unpacked(raw_client_receive(&client), NULL);
    int fds[2] = {open(event_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), (int)syscall(SYS_pidfd_open, trainer, 0)};
    cr_assert(fds[0] >= 0 && fds[1] >= 0);
    attach.has_event_file = attach.event_file = attach.has_pidfd = attach.pidfd = true;
    raw_client_send_attach(&client, &attach, fds, 2);
    gradientd__daemon_message__free_unpacked(raw_client_receive(&client), NULL);

    send_to_frozen_daemon(&client);
    cr_assert(kill(trainer, SIGKILL) == 0 && waitpid(trainer, NULL, 0) == trainer);
    daemon_process_thaw(&daemon_process);
    cr_assert(scratch_wait_until(event_values_ended, event_path, 20.0));
    expect_steps_in_file(1);
    raw_client_close(&client);
    close(fds[0]);
    close(fds[1]);
}

Test(inline_elements, what_arrived_before_the_daemon_stopped_is_in_the_file) {
    struct raw_client client = attached_inline(SMALL_NUMEL);
    send_to_frozen_daemon(&client);
    cr_assert_eq(kill(daemon_process.pid, SIGTERM), 0);
    daemon_process_thaw(&daemon_process);
    uint64_t last = 0;
    for (Gradientd__DaemonMessage *message; (message = raw_client_receive(&client));) {
        cr_assert_eq(message->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
        last = message->released->committed_sequence;
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
    cr_expect_eq(last, STEPS);
    expect_steps_in_file(0);
    raw_client_close(&client);
}

// ---- ends while a piece is inflated, which takes long where it is all zeros

// Sends a step of LARGE_NUMEL zeros but for the last `missing` bytes of its payload.
static void send_zeros(struct raw_client *client, uint32_t step, size_t missing) {
    struct raw_snapshot snapshot;
    uLongf payload_bytes = LARGE_NUMEL * sizeof(float);
    uint8_t *zeros = calloc(payload_bytes, 1), *payload = malloc(payload_bytes);
    size_t bytes;
    cr_assert(zeros && payload && compress(payload, &payload_bytes, zeros, LARGE_NUMEL * sizeof(float)) == Z_OK);
    raw_snapshot_init(&snapshot, step, step, 0);
    raw_snapshot_make_inline(&snapshot, payload_bytes, true);
    uint8_t *frame = raw_inline_frame(&snapshot, payload, payload_bytes, &bytes);
    raw_client_send_bytes(client, frame, bytes - missing, NULL, 0);
    free(frame);
    free(payload);
    free(zeros);
}

static void expect_ended_with(size_t steps) {
    struct event_values values;
    cr_assert(scratch_wait_until(event_values_ended, event_path, 20.0));
    event_values_read(event_path, &values);
    cr_expect_eq(event_values_count(&values, "gradient/norm"), steps);
    event_values_free(&values);
}

Test(inline_elements, the_trainer_dies_while_its_last_step_is_inflated) {
    struct raw_client client = attached_inline(LARGE_NUMEL);
    send_zeros(&client, 1, 0);
    raw_client_close(&client);
    expect_ended_with(1);
}

Test(inline_elements, the_trainer_dies_while_half_a_step_is_inflated) {
    struct raw_client client = attached_inline(LARGE_NUMEL);
    send_zeros(&client, 1, 1);
    raw_client_close(&client);
    expect_ended_with(0);
}

Test(inline_elements, what_follows_waits_until_the_step_is_inflated) {
    struct raw_client client = attached_inline(LARGE_NUMEL);
    send_zeros(&client, 1, 0);
    raw_client_say_hello(&client, 1);
    expect_ended_with(1);
    raw_client_close(&client);
}

Test(inline_elements, the_daemon_stops_while_a_step_is_inflated) {
    struct raw_client client = attached_inline(LARGE_NUMEL);
    send_zeros(&client, 1, 0);
    send_zeros(&client, 2, 1);
    cr_assert_eq(kill(daemon_process.pid, SIGTERM), 0);
    expect_released(&client, 1);
    for (Gradientd__DaemonMessage *message; (message = raw_client_receive(&client));)
        gradientd__daemon_message__free_unpacked(message, NULL);
    raw_client_close(&client);
}
