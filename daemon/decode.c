#include "decode.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "decode_noise.h"
#include "decode_open_run.h"
#include "decode_optimizer.h"
#include "decode_streams.h"
#include "gradientd.pb-c.h"
#include "text.h"

static int decode_hello(const Gradientd__Hello *hello, struct gd_decoded *ret) {
    struct gd_decoded decoded = {.kind = GD_CLIENT_HELLO};
    decoded.hello.protocol_version = hello->protocol_version;
    if (hello->client)
        gd_text_copy_printable(decoded.hello.client, sizeof(decoded.hello.client), hello->client);
    *ret = decoded;
    return 0;
}

static int check_scalars(Gradientd__Scalar **scalars, size_t n_scalars, struct gd_error *ret_error) {
    if (n_scalars > GRADIENTD_USER_TAGS_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "scalars", "scalars has %zu entries, the limit is %d",
                            n_scalars, GRADIENTD_USER_TAGS_MAX);
    for (size_t i = 0; i < n_scalars; i++)
        if (!gd_text_is_name(scalars[i]->tag))
            return gd_error_set(
                ret_error, GD_ERROR_INVALID, "scalars.tag",
                "scalars[%zu].tag has %zu bytes; it must be 1 to %d bytes of UTF-8 without control characters", i,
                strlen(scalars[i]->tag), GRADIENTD_NAME_BYTES_MAX);
    return 0;
}

static int check_time(double wall_time, int64_t step, struct gd_error *ret_error) {
    if (!isfinite(wall_time))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "wall_time", "wall_time is %f, it must be finite", wall_time);
    if (step < 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "step", "step is %lld, it must not be negative",
                            (long long)step);
    return 0;
}

static int check_rates(const Gradientd__Snapshot *snapshot, struct gd_error *ret_error) {
    for (size_t i = 0; i < snapshot->n_parameter_groups; i++) {
        const Gradientd__ParameterGroupStep *rates = snapshot->parameter_groups[i];
        if (!isfinite(rates->learning_rate))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "learning_rate",
                                "parameter_groups[%zu].learning_rate is %f, it must be finite", i,
                                rates->learning_rate);
        if (rates->has_beta2 && !gd_adam_beta2_is_valid(rates->beta2))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "beta2",
                                "parameter_groups[%zu].beta2 is %g, it must be at least 0 and below 1", i,
                                rates->beta2);
        if (rates->has_eps && !gd_adam_eps_is_valid(rates->eps))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "eps",
                                "parameter_groups[%zu].eps is %g, it must be finite and not negative", i, rates->eps);
    }
    return 0;
}

// Elements lie in a slot or are all of the payload.
static int check_elements(const Gradientd__StreamElements *elements, const struct gd_frame *frame,
                          struct gd_error *ret_error) {
    if (elements->has_slot && frame->payload_bytes > 0)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "payload_bytes",
                            "payload_bytes is %u; elements in a slot take no payload", frame->payload_bytes);
    if (elements->has_slot && (elements->has_inline_bytes || elements->deflated))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.inline_bytes",
                            "the elements have both a slot, %u, and what belongs to inline ones", elements->slot);
    if (!elements->has_slot && (!elements->has_inline_bytes || elements->inline_bytes != frame->payload_bytes))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.inline_bytes",
                            "the elements have no slot and inline_bytes %llu; the payload has %u",
                            (unsigned long long)elements->inline_bytes, frame->payload_bytes);
    return 0;
}

static void set_delivery(const Gradientd__StreamElements *elements, struct gd_submission *submission) {
    submission->slot = elements->slot;
    if (elements->has_slot)
        return;
    submission->delivery = elements->deflated ? GD_INLINE_DEFLATED : GD_INLINE;
    submission->inline_bytes = (uint32_t)elements->inline_bytes; // it is the payload's size
}

static int check_snapshot(const Gradientd__Snapshot *snapshot, const struct gd_frame *frame,
                          const Gradientd__StreamElements **ret_gradient, struct gd_error *ret_error) {
    int result = gd_decode_snapshot_streams(snapshot, ret_gradient, ret_error);
    if (result < 0)
        return result;
    if (snapshot->has_optimizer_step && snapshot->optimizer_step == 0)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "optimizer_step", "optimizer_step is 0, it counts from 1");
    if (snapshot->has_model_version && (snapshot->model_version < 0 || snapshot->model_version > snapshot->step))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "model_version",
                            "model_version is %lld, it must not be negative, nor above the step, %lld",
                            (long long)snapshot->model_version, (long long)snapshot->step);
    result = check_elements(*ret_gradient, frame, ret_error);
    if (result == 0)
        result = check_time(snapshot->wall_time, snapshot->step, ret_error);
    if (result == 0)
        result = check_rates(snapshot, ret_error);
    if (result == 0)
        result = gd_decode_noise_check(snapshot, ret_error);
    if (result == 0)
        result = check_scalars(snapshot->scalars, snapshot->n_scalars, ret_error);
    return result;
}

// What a submission holds beside its own fields.
struct contents {
    size_t n_rates;
    size_t norms_bytes;
    Gradientd__Scalar **scalars;
    size_t n_scalars;
    const ProtobufCBinaryData *groups_present; // NULL: all
};

// One block: the struct, then rates, squared norms, scalars, bitmap and tags.
static struct gd_submission *submission_new(struct gd_submission_pool *pool, const struct contents *contents) {
    size_t tag_bytes = 0;
    for (size_t i = 0; i < contents->n_scalars; i++)
        tag_bytes += strlen(contents->scalars[i]->tag) + 1;
    size_t present_bytes = contents->groups_present ? contents->groups_present->len : 0;

    size_t block_bytes = sizeof(struct gd_submission) + contents->n_rates * sizeof(struct gd_adam_rates) +
                         contents->norms_bytes + contents->n_scalars * sizeof(struct gd_user_scalar) + present_bytes +
                         tag_bytes;
    struct gd_submission *submission = gd_submission_new(pool, block_bytes);
    if (!submission)
        return NULL;
    submission->rates = (struct gd_adam_rates *)(submission + 1);
    submission->n_rates = (uint32_t)contents->n_rates;
    submission->squared_norms = (struct gd_squared_norm *)(submission->rates + contents->n_rates);
    submission->scalars = (void *)((uint8_t *)submission->squared_norms + contents->norms_bytes);
    submission->n_scalars = (uint32_t)contents->n_scalars;
    uint8_t *end = (uint8_t *)(submission->scalars + contents->n_scalars);
    if (contents->groups_present) {
        submission->groups_present = present_bytes ? memcpy(end, contents->groups_present->data, present_bytes) : end;
        submission->groups_present_bytes = present_bytes;
        end += present_bytes;
    }
    for (size_t i = 0; i < contents->n_scalars; i++) {
        size_t bytes = strlen(contents->scalars[i]->tag) + 1;
        submission->scalars[i].tag = memcpy(end, contents->scalars[i]->tag, bytes);
        submission->scalars[i].value = contents->scalars[i]->value;
        end += bytes;
    }
    return submission;
}

static int decode_snapshot(const Gradientd__Snapshot *snapshot, const struct gd_frame *frame,
                           struct gd_submission_pool *pool, struct gd_decoded *ret, struct gd_error *ret_error) {
    const Gradientd__StreamElements *gradient;
    int result = check_snapshot(snapshot, frame, &gradient, ret_error);
    if (result < 0)
        return result;

    const struct contents contents = {
        .n_rates = snapshot->n_parameter_groups,
        .norms_bytes = gd_decode_noise_bytes(snapshot),
        .scalars = snapshot->scalars,
        .n_scalars = snapshot->n_scalars,
        .groups_present = snapshot->has_groups_present ? &snapshot->groups_present : NULL,
    };
    struct gd_submission *submission = submission_new(pool, &contents);
    if (!submission)
        return -ENOMEM;
    submission->kind = GD_SUBMISSION_SNAPSHOT;
    submission->sequence = snapshot->sequence;
    submission->step = snapshot->step;
    submission->wall_time = snapshot->wall_time;
    submission->has_optimizer_step = snapshot->has_optimizer_step;
    submission->optimizer_step = snapshot->optimizer_step;
    submission->applied = !snapshot->has_applied || snapshot->applied;
    set_delivery(gradient, submission);
    gd_decode_snapshot_sides(snapshot, submission);
    submission->has_model_version = snapshot->has_model_version;
    submission->model_version = snapshot->model_version;
    submission->skipped = snapshot->skipped;
    gd_decode_noise(snapshot, submission);
    for (uint32_t i = 0; i < submission->n_rates; i++) {
        const Gradientd__ParameterGroupStep *rates = snapshot->parameter_groups[i];
        submission->rates[i] = (struct gd_adam_rates){
            .learning_rate = rates->learning_rate,
            .beta2 = rates->has_beta2 ? rates->beta2 : (double)NAN,
            .eps = rates->has_eps ? rates->eps : (double)NAN,
        };
    }
    *ret = (struct gd_decoded){.kind = GD_CLIENT_SUBMISSION, .submission = submission};
    return 0;
}

static int decode_start_vector(const Gradientd__StartVector *start, const struct gd_frame *frame,
                               struct gd_submission_pool *pool, struct gd_decoded *ret, struct gd_error *ret_error) {
    int result = check_elements(start->elements, frame, ret_error);
    int which = gd_start_of(start->elements->kind);
    if (result == 0 && which < 0)
        result =
            gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                         "elements.kind is %d, it must be one of OpenRun's start_streams", (int)start->elements->kind);
    if (result < 0)
        return result;

    struct gd_submission *submission = submission_new(pool, &(struct contents){0});
    if (!submission)
        return -ENOMEM;
    submission->kind = GD_SUBMISSION_START;
    submission->sequence = start->sequence;
    submission->has_optimizer_step = true;
    submission->optimizer_step = start->optimizer_step;
    submission->start = (uint32_t)which;
    set_delivery(start->elements, submission);
    *ret = (struct gd_decoded){.kind = GD_CLIENT_SUBMISSION, .submission = submission};
    return 0;
}

static int decode_scalars(const Gradientd__Scalars *scalars, struct gd_submission_pool *pool, struct gd_decoded *ret,
                          struct gd_error *ret_error) {
    int result = check_time(scalars->wall_time, scalars->step, ret_error);
    if (result == 0)
        result = check_scalars(scalars->scalars, scalars->n_scalars, ret_error);
    if (result < 0)
        return result;

    struct gd_submission *submission =
        submission_new(pool, &(struct contents){.scalars = scalars->scalars, .n_scalars = scalars->n_scalars});
    if (!submission)
        return -ENOMEM;
    submission->kind = GD_SUBMISSION_SCALARS;
    submission->sequence = scalars->sequence;
    submission->step = scalars->step;
    submission->wall_time = scalars->wall_time;
    *ret = (struct gd_decoded){.kind = GD_CLIENT_SUBMISSION, .submission = submission};
    return 0;
}

static int decode_close_run(const Gradientd__CloseRun *close_run, struct gd_submission_pool *pool,
                            struct gd_decoded *ret, struct gd_error *ret_error) {
    if (close_run->outcome != GRADIENTD__OUTCOME__SUCCESS && close_run->outcome != GRADIENTD__OUTCOME__FAILURE)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "outcome", "outcome is %d; 1 is success, 2 failure",
                            (int)close_run->outcome);
    struct gd_submission *submission = submission_new(pool, &(struct contents){0});
    if (!submission)
        return -ENOMEM;
    submission->kind = GD_SUBMISSION_CLOSE;
    submission->sequence = close_run->sequence;
    submission->failed = close_run->outcome == GRADIENTD__OUTCOME__FAILURE;
    submission->step = close_run->has_step ? close_run->step : -1;
    submission->skipped = close_run->skipped;
    submission->has_optimizer_step = close_run->has_optimizer_step;
    submission->optimizer_step = close_run->optimizer_step;
    *ret = (struct gd_decoded){.kind = GD_CLIENT_SUBMISSION, .submission = submission};
    return 0;
}

static int decode_open_run(const Gradientd__OpenRun *open_run, const struct gd_frame *frame, struct gd_decoded *ret,
                           struct gd_error *ret_error) {
    struct gd_open_run *decoded;
    int result = gd_decode_open_run(open_run, frame, &decoded, ret_error);
    if (result < 0)
        return result;
    *ret = (struct gd_decoded){.kind = GD_CLIENT_OPEN_RUN, .open_run = decoded};
    return 0;
}

static struct gd_decoded decode_status_request(const Gradientd__StatusRequest *request) {
    return (struct gd_decoded){
        .kind = GD_CLIENT_STATUS_REQUEST,
        .status_request = {request->runs_after, request->has_alerts_after ? request->alerts_after : UINT64_MAX},
    };
}

static int decode_message(const Gradientd__ClientMessage *message, const struct gd_frame *frame,
                          struct gd_submission_pool *pool, struct gd_decoded *ret, struct gd_error *ret_error) {
    switch (message->message_case) {
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_HELLO:
        return decode_hello(message->hello, ret);
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN:
        return decode_open_run(message->open_run, frame, ret, ret_error);
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_ATTACH:
        *ret = (struct gd_decoded){
            .kind = GD_CLIENT_ATTACH,
            .attach = {message->attach->memory, message->attach->event_file, message->attach->pidfd},
        };
        return 0;
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT:
        return decode_snapshot(message->snapshot, frame, pool, ret, ret_error);
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR:
        return decode_start_vector(message->start_vector, frame, pool, ret, ret_error);
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS:
        return decode_scalars(message->scalars, pool, ret, ret_error);
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN:
        return decode_close_run(message->close_run, pool, ret, ret_error);
    case GRADIENTD__CLIENT_MESSAGE__MESSAGE_STATUS_REQUEST:
        *ret = decode_status_request(message->status_request);
        return 0;
    default:
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message", "the message is of no known kind");
    }
}

static int decode_frame(const struct gd_frame *frame, struct gd_arena *arena, struct gd_submission_pool *pool,
                        struct gd_decoded *ret_decoded, struct gd_error *ret_error) {
    Gradientd__ClientMessage *message =
        gradientd__client_message__unpack(&arena->allocator, frame->message_bytes, frame->message);
    if (!message && arena->exhausted)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message",
                            "a message of %u bytes needs more than %zu bytes to unpack, the limit",
                            frame->message_bytes, arena->capacity_bytes);
    if (!message)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message", "a message of %u bytes is malformed",
                            frame->message_bytes);
    if (frame->payload_bytes > 0 && message->message_case != GRADIENTD__CLIENT_MESSAGE__MESSAGE_OPEN_RUN &&
        message->message_case != GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT &&
        message->message_case != GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "payload_bytes",
                            "payload_bytes is %u; only OpenRun, Snapshot and StartVector take a payload",
                            frame->payload_bytes);
    return decode_message(message, frame, pool, ret_decoded, ret_error);
}

int gd_decode(const struct gd_frame *frame, struct gd_arena *arena, struct gd_submission_pool *pool,
              struct gd_decoded *ret_decoded, struct gd_error *ret_error) {
    int result = decode_frame(frame, arena, pool, ret_decoded, ret_error);
    gd_arena_reset(arena);
    return result;
}
