#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "gradientd/protocol.h"
#include "offences.h"

static char event_path[256];

OFFENCE(snapshot) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 1, 0);
    raw_client_send_snapshot(client, &request);
}

static Gradientd__StreamElements parameters = GRADIENTD__STREAM_ELEMENTS__INIT;

#define ADD_PARAMETERS(in_slot)                                                                                        \
    parameters.kind = GRADIENTD__STREAM_KIND__PARAMETERS;                                                              \
    parameters.has_slot = in_slot;                                                                                     \
    request.streams[1] = &parameters;                                                                                  \
    request.message.n_streams = 2

#define SNAPSHOT(name, change)                                                                                         \
    OFFENCE(name) {                                                                                                    \
        struct raw_snapshot request;                                                                                   \
        raw_snapshot_init(&request, 2, 2, 1);                                                                          \
        snapshot(client);                                                                                              \
        change;                                                                                                        \
        raw_client_send_snapshot(client, &request);                                                                    \
    }

static char own_tag[] = "gradient/norm", no_tag[] = "";
static char long_tag[GRADIENTD_NAME_BYTES_MAX + 2];
static uint8_t two_bytes[2] = {1, 0};

SNAPSHOT(slot_unknown, request.elements.slot = client->slots)
SNAPSHOT(slot_far, request.elements.slot = UINT32_MAX)
SNAPSHOT(slot_twice, request.elements.slot = 0)
SNAPSHOT(slot_missing, request.elements.has_slot = false)
SNAPSHOT(slot_and_bytes, request.elements.has_inline_bytes = true)
SNAPSHOT(slot_and_deflated, request.elements.has_deflated = request.elements.deflated = true)
SNAPSHOT(no_stream, request.message.n_streams = 0)
SNAPSHOT(two_streams, request.streams[1] = &request.elements; request.message.n_streams = 2)
SNAPSHOT(other_stream, request.elements.kind = GRADIENTD__STREAM_KIND__PARAMETERS)
SNAPSHOT(undeclared_stream, ADD_PARAMETERS(true))
SNAPSHOT(side_inline, ADD_PARAMETERS(false))
SNAPSHOT(version_negative, request.message.has_model_version = true; request.message.model_version = INT64_MIN)
SNAPSHOT(version_ahead, request.message.has_model_version = true; request.message.model_version = 3)
SNAPSHOT(sequence_gap, request.message.sequence = 3)
SNAPSHOT(sequence_again, request.message.sequence = 1)
SNAPSHOT(step_again, request.message.step = 1)
SNAPSHOT(step_below, request.message.step = 0)
SNAPSHOT(step_negative, request.message.step = -1)
SNAPSHOT(optimizer_step_zero, request.message.has_optimizer_step = true)
SNAPSHOT(optimizer_step_again, request.message.has_optimizer_step = true; request.message.optimizer_step = 1)
SNAPSHOT(time_nan, request.message.wall_time = (double)NAN)
SNAPSHOT(time_infinite, request.message.wall_time = (double)INFINITY)
SNAPSHOT(rate_infinite, request.rates.learning_rate = -(double)INFINITY)
SNAPSHOT(rate_nan, request.rates.learning_rate = (double)NAN)
SNAPSHOT(rate_beta2, request.rates.has_beta2 = true; request.rates.beta2 = -0.1)
SNAPSHOT(rate_eps, request.rates.has_eps = true; request.rates.eps = (double)NAN)
SNAPSHOT(rates_missing, request.message.n_parameter_groups = 0)
SNAPSHOT(rates_surplus, request.parameter_groups[1] = &request.rates; request.message.n_parameter_groups = 2)
SNAPSHOT(bitmap_long, request.message.has_groups_present = true;
         request.message.groups_present = ((ProtobufCBinaryData){2, two_bytes}))
SNAPSHOT(bitmap_empty, request.message.has_groups_present = true)
SNAPSHOT(tag_own, request.message.n_scalars = 1; request.scalar.tag = own_tag)
SNAPSHOT(tag_empty, request.message.n_scalars = 1; request.scalar.tag = no_tag)
SNAPSHOT(tag_long, request.message.n_scalars = 1; request.scalar.tag = long_tag)
SNAPSHOT(tag_twice, request.scalars[1] = &request.scalar; request.message.n_scalars = 2)

OFFENCE(scalars_many) {
    static Gradientd__Scalar *scalars[GRADIENTD_USER_TAGS_MAX + 1];
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 1, 0);
    for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++)
        scalars[i] = &request.scalar;
    request.message.scalars = scalars;
    request.message.n_scalars = sizeof(scalars) / sizeof(scalars[0]);
    raw_client_send_snapshot(client, &request);
}

// Readers drop what earlier files of the run have from the first step on: it must be the one that was announced.
OFFENCE(first_step_late) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 2, 0);
    raw_client_send_snapshot(client, &request);
}

OFFENCE(first_step_early) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 0, 0);
    request.message.has_skipped = true;
    request.message.skipped = 1;
    raw_client_send_snapshot(client, &request);
}

// The slots of the last lags are the history, committed or not.
OFFENCE(slot_of_the_history) {
    struct raw_snapshot request;
    for (uint32_t n = 1; n <= 3; n++)
        raw_client_commit_step(client, n);
    raw_snapshot_init(&request, 4, 4, 1);
    raw_client_send_snapshot(client, &request);
}

OFFENCE(payload_beside_a_slot) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 1, 0);
    raw_client_send_inline(client, &request, "more", 4);
}

OFFENCE(scalars_time) {
    raw_client_send_scalars(client, 1, 1, (double)INFINITY, "loss");
}

OFFENCE(scalars_time_nan) {
    raw_client_send_scalars(client, 1, 1, (double)NAN, "loss");
}

OFFENCE(scalars_step_negative) {
    raw_client_send_scalars(client, 1, -1, 1.7e9, "loss");
}

OFFENCE(scalars_sequence) {
    raw_client_send_scalars(client, 2, 1, 1.7e9, "loss");
}

OFFENCE(scalars_own) {
    raw_client_send_scalars(client, 1, 1, 1.7e9, "coherence/cosine_lag1");
}

// As long as a tag may be: the Error cannot hold all of it, and ends with a whole character wherever it is cut.
static void send_long_tag(struct raw_client *client, const char *begin) {
    char tag[GRADIENTD_NAME_BYTES_MAX + 1];
    strcpy(tag, begin);
    while (strlen(tag) + 2 <= GRADIENTD_NAME_BYTES_MAX)
        strcat(tag, "\xc3\xbc");
    raw_client_send_scalars(client, 1, 1, 1.7e9, tag);
}

OFFENCE(scalars_own_long) {
    send_long_tag(client, "group_norm/a");
}

OFFENCE(scalars_own_longest) {
    send_long_tag(client, "group_norm/ab");
}

#define TAG(name, text)                                                                                                \
    OFFENCE(scalars_##name) {                                                                                          \
        raw_client_send_scalars(client, 1, 1, 1.7e9, text);                                                            \
    }
OFFENCES_TEXTS(TAG)

OFFENCE(scalars_step) {
    raw_client_send_scalars(client, 1, 5, 1.7e9, "loss");
    raw_client_send_scalars(client, 2, 5, 1.7e9, "loss");
}

OFFENCE(outcome_unknown) {
    raw_client_send_close_run(client, 1, (Gradientd__Outcome)3);
}

OFFENCE(close_sequence) {
    raw_client_send_close_run(client, 0, GRADIENTD__OUTCOME__SUCCESS);
}

// Both in one piece: the daemon must not have finished the run before it sees the second.
OFFENCE(closed_twice) {
    static const uint8_t frames[] = {
        6, 0, 0, 0, 0, 0, 0, 0, 6 << 3 | 2, 4, 1 << 3, 1, 2 << 3, 1, // CloseRun: sequence 1, success
        6, 0, 0, 0, 0, 0, 0, 0, 6 << 3 | 2, 4, 1 << 3, 2, 2 << 3, 1, // sequence 2
    };
    raw_client_send_bytes(client, frames, sizeof(frames), NULL, 0);
}

OFFENCE(late_step_lag) {
    struct raw_open_run request;
    raw_open_run_init(&request);
    raw_open_run_add_group(&request, "late", 4, 1, 0, 1);
    raw_client_attach(client, &request, event_path);
    snapshot(client);
}

#define OFFENCE_IS(code, function, field, says)                                                                        \
    { #function, RAW_ATTACHED, function, GRADIENTD__ERROR_CODE__##code, field, says }
#define INVALID(function, field, says) OFFENCE_IS(INVALID, function, field, says)
#define UNSUPPORTED(function, field, says) OFFENCE_IS(UNSUPPORTED, function, field, says)
#define TAG_IS(name, text)                                                                                             \
    INVALID(scalars_##name, "scalars.tag", "it must be 1 to 255 bytes of UTF-8 without control characters"),

static const struct offence running[] = {
    INVALID(slot_unknown, "slot", "slot is 8, it must be below the number of slots, 8"),
    INVALID(slot_far, "slot", "slot is 4294967295, it must be below the number of slots, 8"),
    INVALID(slot_twice, "slot", "slot is 0, which is in use"),
    INVALID(slot_of_the_history, "slot", "slot is 1, which is in use"),
    INVALID(slot_missing, "streams.inline_bytes", "no slot and inline_bytes 0"),
    INVALID(slot_and_bytes, "streams.inline_bytes", "both a slot, 1, and what belongs to inline"),
    INVALID(slot_and_deflated, "streams.inline_bytes", "both a slot, 1, and what belongs to inline"),
    OFFENCE_IS(PROTOCOL, payload_beside_a_slot, "payload_bytes",
               "payload_bytes is 4; elements in a slot take no payload"),
    UNSUPPORTED(no_stream, "streams", "streams has 0 entries"),
    INVALID(two_streams, "streams", "streams[1].kind is 1; GRADIENT (1) to OUTPUTS (4) may come once each"),
    UNSUPPORTED(other_stream, "streams", "streams has 1 entries and no GRADIENT"),
    INVALID(undeclared_stream, "streams", "streams has kind 3, which OpenRun's streams have not"),
    UNSUPPORTED(side_inline, "streams.inline_bytes", "streams[1] has PARAMETERS without a slot"),
    INVALID(version_ahead, "model_version", "model_version is 3, it must not be negative, nor above the step, 2"),
    INVALID(version_negative, "model_version", "model_version is -9223372036854775808, it must not be negative"),
    INVALID(sequence_gap, "sequence", "sequence is 3, it must be the next one, 2"),
    INVALID(sequence_again, "sequence", "sequence is 1, it must be the next one, 2"),
    INVALID(first_step_late, "step", "step is 2, the first one must be OpenRun's first_step, 1"),
    INVALID(first_step_early, "step", "step is 0, the first one must be OpenRun's first_step, 1"),
    INVALID(step_again, "step", "step is 1, it must be above the last one, 1"),
    INVALID(step_below, "step", "step is 0, it must be above the last one, 1"),
    INVALID(step_negative, "step", "step is -1, it must not be negative"),
    INVALID(optimizer_step_zero, "optimizer_step", "optimizer_step is 0, it counts from 1"),
    INVALID(optimizer_step_again, "optimizer_step", "optimizer_step is 1, it must be above the last applied one, 1"),
    INVALID(time_nan, "wall_time", "wall_time is nan, it must be finite"),
    INVALID(time_infinite, "wall_time", "wall_time is inf, it must be finite"),
    INVALID(rate_nan, "learning_rate", "parameter_groups[0].learning_rate is nan, it must be finite"),
    INVALID(rate_infinite, "learning_rate", "parameter_groups[0].learning_rate is -inf, it must be finite"),
    INVALID(rate_beta2, "beta2", "parameter_groups[0].beta2 is -0.1, it must be at least 0 and below 1"),
    INVALID(rate_eps, "eps", "parameter_groups[0].eps is nan, it must be finite and not negative"),
    INVALID(rates_missing, "parameter_groups", "parameter_groups is 0, it must be as many as OpenRun has, 1"),
    INVALID(rates_surplus, "parameter_groups", "parameter_groups is 2, it must be as many as OpenRun has, 1"),
    INVALID(bitmap_long, "groups_present", "groups_present is 2, it must be as many bytes as groups need, 1"),
    INVALID(bitmap_empty, "groups_present", "groups_present is 0, it must be as many bytes as groups need, 1"),
    INVALID(tag_own, "scalars.tag", "scalars.tag is one the daemon writes itself: gradient/norm"),
    INVALID(tag_empty, "scalars.tag", "scalars[0].tag has 0 bytes; it must be 1 to 255"),
    INVALID(tag_long, "scalars.tag", "scalars[0].tag has 256 bytes; it must be 1 to 255"),
    INVALID(tag_twice, "step", "step 2 of a tag is not above its last one, 2"),
    INVALID(scalars_many, "scalars", "scalars has 1025 entries, the limit is 1024"),
    INVALID(scalars_time, "wall_time", "wall_time is inf, it must be finite"),
    INVALID(scalars_time_nan, "wall_time", "wall_time is nan, it must be finite"),
    INVALID(scalars_step, "step", "step 5 of a tag is not above its last one, 5"),
    INVALID(scalars_step_negative, "step", "step is -1, it must not be negative"),
    INVALID(scalars_sequence, "sequence", "sequence is 2, it must be the next one, 1"),
    INVALID(scalars_own, "scalars.tag", "scalars.tag is one the daemon writes itself: coherence/cosine_lag1"),
    INVALID(scalars_own_long, "scalars.tag", "scalars.tag is one the daemon writes itself: group_norm/a"),
    INVALID(scalars_own_longest, "scalars.tag", "scalars.tag is one the daemon writes itself: group_norm/ab"),
    OFFENCES_TEXTS(TAG_IS) INVALID(outcome_unknown, "outcome", "outcome is 3; 1 is success, 2 failure"),
    INVALID(close_sequence, "sequence", "sequence is 0, it must be the next one, 1"),
    OFFENCE_IS(PROTOCOL, closed_twice, "message", "the run takes no submission now"),
    {"late_step_lag", RAW_WELCOME, late_step_lag, GRADIENTD__ERROR_CODE__INVALID, "group.step_lag",
     "group.step_lag is 1, it must be below the first optimizer_step, 1"},
};

struct offences offences_running(const char *directory) {
    snprintf(event_path, sizeof(event_path), "%s/run.events", directory);
    memset(long_tag, 'a', sizeof(long_tag) - 1);
    return OFFENCES(running);
}
