// A client's message with its payload. The input is  u16le message_bytes (cut to what is there), message, payload.
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "fuzz.h"
#include "layout.h"
#include "text.h"

static void check_open_run(const struct gd_open_run *open_run) {
    uint64_t elements = 0;
    assert(gd_text_is_run(open_run->run));
    assert(isfinite(open_run->wall_time) && open_run->first_step >= 0 && open_run->stride >= 1);
    assert(open_run->max_lag >= 1 && open_run->max_lag <= GRADIENTD_LAG_MAX);
    assert(open_run->inflight >= 1 && open_run->inflight <= GRADIENTD_INFLIGHT_MAX);
    assert(open_run->n_groups >= 1 && open_run->n_groups <= GRADIENTD_GROUPS_MAX);
    for (uint32_t i = 0; i < open_run->n_groups; i++) {
        assert(gd_text_is_name(open_run->groups[i].name));
        assert(open_run->groups[i].parameter_group < open_run->n_parameter_groups);
        assert(open_run->groups[i].numel >= 1);
        elements += open_run->groups[i].numel;
    }
    assert(elements == open_run->elements);
    assert(open_run->adam.rule >= GD_RULE_SGD && open_run->adam.rule <= GD_RULE_OTHER);
    assert(open_run->n_shadows <= GD_SHADOWS_MAX);
    for (uint32_t i = 0; i < open_run->n_shadows; i++)
        assert(open_run->shadows[i].rule >= GD_RULE_SGD && open_run->shadows[i].rule <= GD_RULE_ADAFOM);
    for (uint32_t i = 0; i < open_run->n_parameter_groups; i++) {
        const struct gd_adam_rates *rates = &open_run->parameter_groups[i];
        assert(rates->beta2 >= 0.0 && rates->beta2 < 1.0 && rates->eps >= 0.0 && isfinite(rates->eps));
        assert(!isinf(open_run->start_learning_rates[i])); // NaN: as in the first snapshot
    }

    struct gd_layout layout;
    gd_layout_init(&layout, open_run);
    assert(layout.slots == open_run->max_lag + 1 + open_run->inflight);
    assert(open_run->element_type >= GD_F32 && open_run->element_type <= GD_F16);
    assert(layout.slot_stride_bytes >= open_run->elements * (open_run->element_type == GD_F32 ? 4 : 2));
    assert(layout.slots_offset + layout.slots * layout.slot_stride_bytes <= layout.total_bytes);
}

static void check_submission(const struct gd_submission *submission) {
    if (submission->kind == GD_SUBMISSION_CLOSE)
        return;
    assert(submission->start < GD_STARTS);
    assert(isfinite(submission->wall_time) && submission->step >= 0);
    assert(submission->n_scalars <= GRADIENTD_USER_TAGS_MAX);
    for (uint32_t i = 0; i < submission->n_scalars; i++)
        assert(gd_text_is_name(submission->scalars[i].tag));
    for (uint32_t i = 0; i < submission->n_rates; i++) {
        const struct gd_adam_rates *rates = &submission->rates[i]; // NaN: as before
        assert(isfinite(rates->learning_rate));
        assert(isnan(rates->beta2) || (rates->beta2 >= 0.0 && rates->beta2 < 1.0));
        assert(isnan(rates->eps) || (rates->eps >= 0.0 && isfinite(rates->eps)));
    }
    for (uint32_t i = 0; i < 8 * submission->groups_present_bytes; i++)
        (void)gd_submission_has_group(submission, i); // the bitmap is all there
}

static void check_decoded(struct gd_decoded *decoded) {
    switch (decoded->kind) {
    case GD_CLIENT_HELLO:
        assert(memchr(decoded->hello.client, '\0', sizeof(decoded->hello.client)));
        assert(gd_text_is_clean(decoded->hello.client, strlen(decoded->hello.client)));
        break;
    case GD_CLIENT_OPEN_RUN:
        check_open_run(decoded->open_run);
        gd_open_run_free(decoded->open_run);
        break;
    case GD_CLIENT_SUBMISSION:
        check_submission(decoded->submission);
        free(decoded->submission);
        break;
    case GD_CLIENT_ATTACH:
    case GD_CLIENT_STATUS_REQUEST:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct gd_arena arena;
    if (!arena.base && gd_arena_init(&arena, GD_DECODE_ARENA_BYTES) < 0)
        return 0;
    if (bytes < 2)
        return 0;

    size_t message_bytes = (size_t)data[0] | (size_t)data[1] << 8;
    if (message_bytes > bytes - 2)
        message_bytes = bytes - 2;
    struct gd_frame frame = {
        .message = data + 2,
        .message_bytes = (uint32_t)message_bytes,
        .payload_bytes = (uint32_t)(bytes - 2 - message_bytes),
        .head_bytes = GRADIENTD_FRAME_HEADER_BYTES + message_bytes,
    };
    struct gd_decoded decoded;
    struct gd_error error = {0};
    int result = gd_decode(&frame, &arena, NULL, &decoded, &error);
    if (result == 0 && decoded.kind == GD_CLIENT_OPEN_RUN) {
        result = gd_open_run_read_table(decoded.open_run, frame.message + message_bytes, frame.payload_bytes, &error);
        if (result < 0)
            gd_open_run_free(decoded.open_run);
    }
    if (result == 0) {
        check_decoded(&decoded);
    } else {
        assert(result == -EBADMSG || result == -ENOMEM);
        if (result == -EBADMSG)
            assert(error.field && strlen(error.text) > 0 && gd_text_is_clean(error.text, strlen(error.text)));
    }
    return 0;
}
