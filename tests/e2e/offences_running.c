#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "offences.h"

static char event_path[256];

OFFENCE(snapshot) {
    struct raw_snapshot request;
    raw_snapshot_init(&request, 1, 1, 0);
    raw_client_send_snapshot(client, &request);
}

#define SNAPSHOT(name, change)                                                                                         \
    OFFENCE(name) {                                                                                                    \
        struct raw_snapshot request;                                                                                   \
        raw_snapshot_init(&request, 2, 2, 1);                                                                          \
        snapshot(client);                                                                                              \
        change;                                                                                                        \
        raw_client_send_snapshot(client, &request);                                                                    \
    }

static char own_tag[] = "gradient/norm", control_tag[] = "a\tb";
static uint8_t two_bytes[2] = {1, 0};

SNAPSHOT(slot_unknown, request.elements.slot = client->slots)
SNAPSHOT(slot_far, request.elements.slot = UINT32_MAX)
SNAPSHOT(slot_twice, request.elements.slot = 0)
SNAPSHOT(slot_missing, request.elements.has_slot = false)
SNAPSHOT(no_stream, request.message.n_streams = 0)
SNAPSHOT(other_stream, request.elements.kind = GRADIENTD__STREAM_KIND__PARAMETERS)
SNAPSHOT(sequence_gap, request.message.sequence = 3)
SNAPSHOT(sequence_again, request.message.sequence = 1)
SNAPSHOT(step_again, request.message.step = 1)
SNAPSHOT(step_negative, request.message.step = -1)
SNAPSHOT(optimizer_step_zero, request.message.has_optimizer_step = true)
SNAPSHOT(optimizer_step_again, request.message.has_optimizer_step = true; request.message.optimizer_step = 1)
SNAPSHOT(time_nan, request.message.wall_time = (double)NAN)
SNAPSHOT(rate_nan, request.rates.learning_rate = (double)NAN)
SNAPSHOT(rate_beta2, request.rates.has_beta2 = true; request.rates.beta2 = -0.1)
SNAPSHOT(rate_eps, request.rates.has_eps = true; request.rates.eps = (double)NAN)
SNAPSHOT(rates_missing, request.message.n_parameter_groups = 0)
SNAPSHOT(bitmap_long, request.message.has_groups_present = true;
         request.message.groups_present = ((ProtobufCBinaryData){2, two_bytes}))
SNAPSHOT(bitmap_empty, request.message.has_groups_present = true)
SNAPSHOT(tag_own, request.message.n_scalars = 1; request.scalar.tag = own_tag)
SNAPSHOT(tag_control, request.message.n_scalars = 1; request.scalar.tag = control_tag)

OFFENCE(scalars_time) {
    raw_client_send_scalars(client, 1, 1, (double)INFINITY, "loss");
}

OFFENCE(scalars_step) {
    raw_client_send_scalars(client, 1, 5, 1.7e9, "loss");
    raw_client_send_scalars(client, 2, 5, 1.7e9, "loss");
}

OFFENCE(outcome_unknown) {
    raw_client_send_close_run(client, 1, (Gradientd__Outcome)3);
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

static const struct offence running[] = {
    {"slot_unknown", RAW_ATTACHED, slot_unknown, GRADIENTD__ERROR_CODE__INVALID, "slot",
     "slot is 8, it must be below the number of slots, 8"},
    {"slot_far", RAW_ATTACHED, slot_far, GRADIENTD__ERROR_CODE__INVALID, "slot", "slot is 4294967295"},
    {"slot_twice", RAW_ATTACHED, slot_twice, GRADIENTD__ERROR_CODE__INVALID, "slot", "slot is 0, which is in use"},
    {"slot_missing", RAW_ATTACHED, slot_missing, GRADIENTD__ERROR_CODE__INVALID, "streams.inline_bytes",
     "no slot and inline_bytes 0"},
    {"no_stream", RAW_ATTACHED, no_stream, GRADIENTD__ERROR_CODE__UNSUPPORTED, "streams", "streams has 0 entries"},
    {"other_stream", RAW_ATTACHED, other_stream, GRADIENTD__ERROR_CODE__UNSUPPORTED, "streams",
     "exactly one, GRADIENT"},
    {"sequence_gap", RAW_ATTACHED, sequence_gap, GRADIENTD__ERROR_CODE__INVALID, "sequence",
     "sequence is 3, it must be the next one, 2"},
    {"sequence_again", RAW_ATTACHED, sequence_again, GRADIENTD__ERROR_CODE__INVALID, "sequence",
     "sequence is 1, it must be the next one, 2"},
    {"step_again", RAW_ATTACHED, step_again, GRADIENTD__ERROR_CODE__INVALID, "step",
     "step is 1, it must be above the last one, 1"},
    {"step_negative", RAW_ATTACHED, step_negative, GRADIENTD__ERROR_CODE__INVALID, "step", "step is -1"},
    {"optimizer_step_zero", RAW_ATTACHED, optimizer_step_zero, GRADIENTD__ERROR_CODE__INVALID, "optimizer_step",
     "optimizer_step is 0, it counts from 1"},
    {"optimizer_step_again", RAW_ATTACHED, optimizer_step_again, GRADIENTD__ERROR_CODE__INVALID, "optimizer_step",
     "optimizer_step is 1, it must be above the last applied one, 1"},
    {"time_nan", RAW_ATTACHED, time_nan, GRADIENTD__ERROR_CODE__INVALID, "wall_time", "wall_time is nan"},
    {"rate_nan", RAW_ATTACHED, rate_nan, GRADIENTD__ERROR_CODE__INVALID, "learning_rate",
     "parameter_groups[0].learning_rate is nan"},
    {"rate_beta2", RAW_ATTACHED, rate_beta2, GRADIENTD__ERROR_CODE__INVALID, "beta2",
     "parameter_groups[0].beta2 is -0.1"},
    {"rate_eps", RAW_ATTACHED, rate_eps, GRADIENTD__ERROR_CODE__INVALID, "eps", "parameter_groups[0].eps is nan"},
    {"rates_missing", RAW_ATTACHED, rates_missing, GRADIENTD__ERROR_CODE__INVALID, "parameter_groups",
     "parameter_groups is 0, it must be as many as OpenRun has, 1"},
    {"bitmap_long", RAW_ATTACHED, bitmap_long, GRADIENTD__ERROR_CODE__INVALID, "groups_present", "groups_present is 2"},
    {"bitmap_empty", RAW_ATTACHED, bitmap_empty, GRADIENTD__ERROR_CODE__INVALID, "groups_present",
     "groups_present is 0"},
    {"tag_own", RAW_ATTACHED, tag_own, GRADIENTD__ERROR_CODE__INVALID, "scalars.tag",
     "gradient/norm is one the daemon writes itself"},
    {"tag_control", RAW_ATTACHED, tag_control, GRADIENTD__ERROR_CODE__INVALID, "scalars.tag",
     "scalars[0].tag has 3 bytes"},
    {"scalars_time", RAW_ATTACHED, scalars_time, GRADIENTD__ERROR_CODE__INVALID, "wall_time", "wall_time is inf"},
    {"scalars_step", RAW_ATTACHED, scalars_step, GRADIENTD__ERROR_CODE__INVALID, "step",
     "step 5 of a tag is not above its last one, 5"},
    {"outcome_unknown", RAW_ATTACHED, outcome_unknown, GRADIENTD__ERROR_CODE__INVALID, "outcome",
     "outcome is 3; 1 is success, 2 failure"},
    {"closed_twice", RAW_ATTACHED, closed_twice, GRADIENTD__ERROR_CODE__PROTOCOL, "message",
     "the run takes no submission now"},
    {"late_step_lag", RAW_WELCOME, late_step_lag, GRADIENTD__ERROR_CODE__INVALID, "group.step_lag",
     "group.step_lag is 1, it must be below the first optimizer_step, 1"},
};

struct offences offences_running(const char *directory) {
    snprintf(event_path, sizeof(event_path), "%s/run.events", directory);
    return OFFENCES(running);
}
