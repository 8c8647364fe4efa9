#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "offences.h"

#define SECOND_MOMENT GRADIENTD__STREAM_KIND__START_SECOND_MOMENT
#define MAXIMUM GRADIENTD__STREAM_KIND__START_SECOND_MOMENT_MAX

static char event_path[256];

// ---- what OpenRun declares

// An OpenRun with up to three start streams.
#define DECLARE(name, rule_is, n, ...)                                                                                 \
    OFFENCE(name) {                                                                                                    \
        static const Gradientd__StreamKind kinds[] = {__VA_ARGS__};                                                    \
        struct raw_open_run request;                                                                                   \
        raw_open_run_init(&request);                                                                                   \
        request.optimizer.rule = rule_is;                                                                              \
        request.optimizer.has_maximum_of = request.optimizer.rule == GRADIENTD__RULE__AMSGRAD;                         \
        request.message.n_start_streams = n;                                                                           \
        for (size_t i = 0; i < (n); i++)                                                                               \
            request.start_streams[i] = kinds[i];                                                                       \
        raw_client_send_open_run(client, &request);                                                                    \
    }

DECLARE(of_sgd, GRADIENTD__RULE__SGD, 1, SECOND_MOMENT)
DECLARE(of_other, GRADIENTD__RULE__OTHER, 1, SECOND_MOMENT)
DECLARE(maximum_of_adam, GRADIENTD__RULE__ADAM, 1, MAXIMUM)
DECLARE(second_moment_twice, GRADIENTD__RULE__ADAM, 2, SECOND_MOMENT, SECOND_MOMENT)
DECLARE(maximum_missing, GRADIENTD__RULE__AMSGRAD, 1, SECOND_MOMENT)
DECLARE(maximum_alone, GRADIENTD__RULE__AMSGRAD, 1, MAXIMUM)
DECLARE(three, GRADIENTD__RULE__AMSGRAD, 3, SECOND_MOMENT, MAXIMUM, MAXIMUM)
DECLARE(gradient, GRADIENTD__RULE__ADAM, 1, GRADIENTD__STREAM_KIND__GRADIENT)
DECLARE(parameters, GRADIENTD__RULE__ADAM, 1, GRADIENTD__STREAM_KIND__START_PARAMETERS)
DECLARE(outputs, GRADIENTD__RULE__ADAM, 1, GRADIENTD__STREAM_KIND__START_OUTPUTS)
DECLARE(nothing_known, GRADIENTD__RULE__ADAM, 1, (Gradientd__StreamKind)9)

OFFENCE(rate_nan) {
    struct raw_open_run request;
    raw_open_run_init(&request);
    request.parameter_group.has_start_learning_rate = true;
    request.parameter_group.start_learning_rate = (double)NAN;
    raw_client_send_open_run(client, &request);
}

// ---- what comes

// Attaches an amsgrad run that will hand over both vectors and whose second group is `step_lag` steps behind.
static void begin_late(struct raw_client *client, uint32_t step_lag) {
    struct raw_open_run request;
    raw_open_run_init(&request);
    raw_open_run_add_group(&request, "late", 4, 1, 0, step_lag);
    request.optimizer.rule = GRADIENTD__RULE__AMSGRAD;
    request.optimizer.has_maximum_of = true;
    request.optimizer.maximum_of = GRADIENTD__MAXIMUM_OF__CORRECTED;
    request.message.n_start_streams = 2;
    request.start_streams[0] = SECOND_MOMENT;
    request.start_streams[1] = MAXIMUM;
    raw_client_attach(client, &request, event_path);
}

static void begin(struct raw_client *client) {
    begin_late(client, 0);
    raw_client_send_start_vector(client, 1, SECOND_MOMENT, 10);
}

static void send_snapshot(struct raw_client *client, uint64_t sequence, uint64_t optimizer_step) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, sequence, 1, 0);
    request.message.has_optimizer_step = true;
    request.message.optimizer_step = optimizer_step;
    raw_client_send_snapshot(client, &request);
}

OFFENCE(snapshot_before_all) {
    begin(client);
    send_snapshot(client, 2, 11);
}

OFFENCE(same_kind_twice) {
    begin(client);
    raw_client_send_start_vector(client, 2, SECOND_MOMENT, 10);
}

OFFENCE(of_another_step) {
    begin(client);
    raw_client_send_start_vector(client, 2, MAXIMUM, 11);
}

OFFENCE(out_of_sequence) {
    begin(client);
    raw_client_send_start_vector(client, 3, MAXIMUM, 10);
}

OFFENCE(of_another_kind) {
    begin(client);
    raw_client_send_start_vector(client, 2, GRADIENTD__STREAM_KIND__GRADIENT, 10);
}

OFFENCE(after_the_snapshots) {
    begin(client);
    raw_client_send_start_vector(client, 2, MAXIMUM, 10);
    send_snapshot(client, 3, 11);
    raw_client_send_start_vector(client, 4, SECOND_MOMENT, 10);
}

OFFENCE(snapshot_of_the_same_step) {
    begin(client);
    raw_client_send_start_vector(client, 2, MAXIMUM, 10);
    send_snapshot(client, 3, 10);
}

OFFENCE(before_the_late_group) {
    begin_late(client, 11);
    raw_client_send_start_vector(client, 1, SECOND_MOMENT, 10);
}

OFFENCE(not_declared) {
    raw_client_send_start_vector(client, 1, SECOND_MOMENT, 10);
}

// The second vector, with what is wrong with its elements.
static void send_elements(struct raw_client *client, Gradientd__StreamElements elements, size_t payload_bytes) {
    static const float payload[RAW_NUMEL + 1];
    Gradientd__StartVector body = GRADIENTD__START_VECTOR__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    elements.kind = MAXIMUM;
    body.sequence = 2;
    body.elements = &elements;
    body.optimizer_step = 10;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
    message.start_vector = &body;
    begin(client);
    raw_client_send(client, &message, payload, payload_bytes);
}

#define ELEMENTS(name, payload_bytes, ...)                                                                             \
    OFFENCE(name) {                                                                                                    \
        Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;                                         \
        __VA_ARGS__;                                                                                                   \
        send_elements(client, elements, payload_bytes);                                                                \
    }

ELEMENTS(in_no_slot, 0, (void)0)
ELEMENTS(in_slot_1, 0, elements.has_slot = true; elements.slot = 1)
ELEMENTS(in_slot_and_payload, 36, elements.has_slot = true)
ELEMENTS(in_a_payload, 36, elements.has_inline_bytes = true; elements.inline_bytes = 36)

#define OFFENCE_IS(code, function, stage, field, says)                                                                 \
    { #function, stage, function, GRADIENTD__ERROR_CODE__##code, field, says }
#define DECLARED(code, function, says) OFFENCE_IS(code, function, RAW_WELCOME, "start_streams", says)
#define INVALID(function, field, says) OFFENCE_IS(INVALID, function, RAW_WELCOME, field, says)

static const struct offence starting[] = {
    DECLARED(INVALID, of_sgd, "start_streams[0] is 5, which the state of rule 1 does not hold"),
    DECLARED(INVALID, of_other, "start_streams[0] is 5, which the state of rule 8 does not hold"),
    DECLARED(INVALID, maximum_of_adam, "start_streams[0] is 6, which the state of rule 2 does not hold"),
    DECLARED(INVALID, second_moment_twice, "start_streams has 5 twice"),
    DECLARED(INVALID, maximum_missing, "start_streams has 1 entries; amsgrad needs"),
    DECLARED(INVALID, maximum_alone, "start_streams has 1 entries; amsgrad needs"),
    DECLARED(INVALID, three, "start_streams has 6 twice"),
    DECLARED(INVALID, gradient, "start_streams[0] is 1, which the state of rule 2 does not hold"),
    DECLARED(INVALID, nothing_known, "start_streams[0] is 9, which the state of rule 2 does not hold"),
    DECLARED(INVALID, parameters, "start_streams[0] is 7; streams must then have 3"),
    DECLARED(INVALID, outputs, "start_streams[0] is 8; streams must then have 4"),
    INVALID(rate_nan, "start_learning_rate", "parameter_groups[0].start_learning_rate is nan, it must be finite"),

    INVALID(snapshot_before_all, "start_streams", "a Snapshot came before there was a StartVector for each"),
    INVALID(same_kind_twice, "start_streams", "a second StartVector of the same kind"),
    INVALID(after_the_snapshots, "start_streams", "a second StartVector of the same kind"),
    INVALID(of_another_kind, "start_streams", "elements.kind is 1, it must be one of OpenRun's start_streams"),
    INVALID(of_another_step, "optimizer_step", "optimizer_step is 11, it must be that of the other StartVector, 10"),
    INVALID(before_the_late_group, "optimizer_step", "is 10, it must be at least every group's step_lag, as 11"),
    INVALID(snapshot_of_the_same_step, "optimizer_step", "is 10, it must be above the last applied one, 10"),
    INVALID(out_of_sequence, "sequence", "sequence is 3, it must be the next one, 2"),
    OFFENCE_IS(INVALID, not_declared, RAW_ATTACHED, "start_streams", "none of OpenRun's 0 start_streams"),

    INVALID(in_no_slot, "streams.inline_bytes", "no slot and inline_bytes 0; the payload has 0"),
    INVALID(in_slot_1, "slot", "slot is 1, it must be below the number of slots, 1"),
    OFFENCE_IS(PROTOCOL, in_slot_and_payload, RAW_WELCOME, "payload_bytes", "elements in a slot take no payload"),
    INVALID(in_a_payload, "streams.slot", "the elements have no slot; this run was attached with memory"),
};

struct offences offences_starting(const char *directory) {
    snprintf(event_path, sizeof(event_path), "%s/start.events", directory);
    return OFFENCES(starting);
}
