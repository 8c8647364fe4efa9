// Runs that differ in the type of their elements alone, through memory and inline.
#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "../unit/element_values.h"
#include "event_values.h"
#include "fixture.h"
#include "raw_client.h"

enum { STEPS = 12, OTHER_NUMEL = 3001, ELEMENTS = RAW_NUMEL + OTHER_NUMEL };

TestSuite(element_types, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 60);

// Values that all three types hold: at most 8 bits, and what has a meaning of its own.
static float element(uint32_t step, uint32_t i) {
    static const float special[] = {-0.0f, NAN, INFINITY, -INFINITY, 0x1p-24f, 0x1p15f};
    uint32_t random = (step * ELEMENTS + i) * UINT32_C(2654435761) >> 16;
    if (random % 50 == 0)
        return special[random / 50 % (sizeof(special) / sizeof(special[0]))];
    return (float)((int)(random % 257) - 128) / 64.0f;
}

static void write_elements(enum gd_element_type type, uint32_t step, void *elements) {
    for (uint32_t i = 0; i < ELEMENTS; i++) {
        float value = element(step, i);
        uint32_t bits = element_bits(type, value);
        cr_assert(isnan(value) || element_value(type, bits) == (double)value, "type %d cannot hold %a", (int)type,
                  (double)value);
        element_store(type, elements, i, bits);
    }
}

// The message of that kind and nothing else.
static Gradientd__DaemonMessage *receive(struct raw_client *client, Gradientd__DaemonMessage__MessageCase kind) {
    Gradientd__DaemonMessage *message = raw_client_receive(client);
    cr_assert(message, "the daemon closed the connection");
    cr_assert(message->message_case == kind, "message %d, not %d: %s", (int)message->message_case, (int)kind,
              message->message_case == GRADIENTD__DAEMON_MESSAGE__MESSAGE_ERROR ? message->error->text : "");
    return message;
}

static void expect_released(struct raw_client *client, uint64_t sequence) {
    Gradientd__DaemonMessage *message = receive(client, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
    cr_assert_eq(message->released->committed_sequence, sequence);
    gradientd__daemon_message__free_unpacked(message, NULL);
}

// The connection ends once the file is whole; an inline client is told of the last commit before that, too.
static void expect_end(struct raw_client *client) {
    Gradientd__DaemonMessage *message;
    while ((message = raw_client_receive(client))) {
        cr_assert_eq(message->message_case, GRADIENTD__DAEMON_MESSAGE__MESSAGE_RELEASED);
        gradientd__daemon_message__free_unpacked(message, NULL);
    }
}

static void open_run_of(enum gd_element_type type, struct raw_open_run *ret_open_run) {
    raw_open_run_init(ret_open_run);
    raw_open_run_add_group(ret_open_run, "other", 5, OTHER_NUMEL, 0, 0);
    ret_open_run->stream.element_type = (Gradientd__ElementType)type;
    ret_open_run->optimizer.rule = GRADIENTD__RULE__ADAM;
    ret_open_run->parameter_group.has_beta2 = true;
    ret_open_run->parameter_group.beta2 = 0.9;
}

// Each step waits for its commit, so that the slots come back in turn.
static void submit_in_memory(struct raw_client *client, enum gd_element_type type, uint32_t step) {
    struct raw_snapshot snapshot;
    uint32_t slot = step % client->slots;
    raw_snapshot_init(&snapshot, step, step, slot);
    write_elements(type, step, client->memory + client->slots_offset + slot * client->slot_stride_bytes);
    raw_client_wait(client);
    raw_client_send_snapshot(client, &snapshot);
    expect_released(client, step);
}

static void submit_inline(struct raw_client *client, enum gd_element_type type, uint32_t step) {
    uint8_t elements[ELEMENTS * sizeof(float)];
    struct raw_snapshot snapshot;

    raw_snapshot_init(&snapshot, step, step, 0);
    raw_snapshot_make_inline(&snapshot, ELEMENTS * gd_element_bytes(type), false);
    write_elements(type, step, elements);
    raw_client_send_inline(client, &snapshot, elements, snapshot.elements.inline_bytes);
    expect_released(client, step);
}

static void train(enum gd_element_type type, bool in_memory, const char *path) {
    struct raw_client client = raw_client_connect(daemon_process.socket);
    struct raw_open_run open_run;

    raw_client_advance(&client, RAW_WELCOME, NULL);
    open_run_of(type, &open_run);
    if (in_memory)
        raw_client_attach(&client, &open_run, path);
    else
        raw_client_attach_inline(&client, &open_run, path);
    for (uint32_t step = 1; step <= STEPS; step++) {
        if (in_memory)
            submit_in_memory(&client, type, step);
        else
            submit_inline(&client, type, step);
    }
    raw_client_send_close_run(&client, STEPS + 1, GRADIENTD__OUTCOME__SUCCESS);
    expect_released(&client, STEPS + 1);
    expect_end(&client);
    raw_client_close(&client);
}

static void expect_norms(const char *path) {
    struct event_values values;
    event_values_read(path, &values);
    for (uint32_t step = 1; step <= STEPS; step++) {
        double square = 0.0;
        for (uint32_t i = 0; i < ELEMENTS; i++) {
            double g = (double)element(step, i);
            square += isfinite(g) ? g * g : 0.0;
        }
        const struct event_value *norm = event_values_find(&values, "gradient/norm", step);
        cr_assert(norm && fabs((double)norm->value / sqrt(square) - 1.0) < 1e-6, "step %u: %g, expected %g", step,
                  norm ? (double)norm->value : -1.0, sqrt(square));
    }
    cr_expect(event_values_count(&values, "coherence/cosine_lag5") > 0);
    cr_expect(event_values_count(&values, "adam/B_over_A") > 0);
    event_values_free(&values);
}

Test(element_types, runs_of_the_same_values_write_the_same_bytes) {
    char expected[SCRATCH_PATH_BYTES + 32], path[SCRATCH_PATH_BYTES + 32];
    snprintf(expected, sizeof(expected), "%s/f32.events", directory);
    train(GD_F32, true, expected);
    expect_norms(expected);
    for (enum gd_element_type type = GD_F32; type <= GD_F16; type++) {
        for (int in_memory = 0; in_memory <= 1; in_memory++) {
            snprintf(path, sizeof(path), "%s/%d-%d.events", directory, (int)type, in_memory);
            train(type, in_memory, path);
            scratch_expect_same(path, expected);
        }
    }
}
