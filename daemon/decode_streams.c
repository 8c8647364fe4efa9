#include "decode_streams.h"

static const char *const side_names[GD_SIDES] = {"PROBE_GRADIENT", "PARAMETERS", "OUTPUTS"};

// The side of a kind, GD_SIDES: it is none.
static enum gd_side side_of(Gradientd__StreamKind kind) {
    switch (kind) {
    case GRADIENTD__STREAM_KIND__PROBE_GRADIENT:
        return GD_SIDE_PROBE_GRADIENT;
    case GRADIENTD__STREAM_KIND__PARAMETERS:
        return GD_SIDE_PARAMETERS;
    case GRADIENTD__STREAM_KIND__OUTPUTS:
        return GD_SIDE_OUTPUTS;
    default:
        return GD_SIDES;
    }
}

// What all streams have.
static int read_stream(const Gradientd__Stream *stream, enum gd_element_type *ret_type, uint64_t *ret_elements,
                       uint64_t *ret_stride, struct gd_error *ret_error) {
    if (stream->element_type != GRADIENTD__ELEMENT_TYPE__F32 && stream->element_type != GRADIENTD__ELEMENT_TYPE__BF16 &&
        stream->element_type != GRADIENTD__ELEMENT_TYPE__F16)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "element_type",
                            "element_type is %d; F32 (1), BF16 (2) and F16 (3) are supported",
                            (int)stream->element_type);
    *ret_type = (enum gd_element_type)stream->element_type;
    *ret_elements = stream->has_elements ? stream->elements : UINT64_MAX;
    *ret_stride = stream->has_stride ? stream->stride : 1;
    return gd_error_check_range("stride", *ret_stride, 1, UINT32_MAX, ret_error);
}

// Elements are those of one example times the examples.
static int check_outputs(const struct gd_side_stream *outputs, struct gd_error *ret_error) {
    int result = gd_error_check_range("examples", outputs->examples, 1, GD_ELEMENTS_MAX, ret_error);
    if (result == 0)
        result = gd_error_check_range("elements", outputs->stated_elements, 1, GD_ELEMENTS_MAX, ret_error);
    if (result == 0 && outputs->stated_elements % outputs->examples != 0)
        result = gd_error_set(ret_error, GD_ERROR_INVALID, "elements",
                              "elements of OUTPUTS is %llu, it must be a multiple of its examples, %llu",
                              (unsigned long long)outputs->stated_elements, (unsigned long long)outputs->examples);
    return result;
}

static int read_side(const Gradientd__Stream *stream, enum gd_side side, struct gd_open_run *open_run,
                     struct gd_error *ret_error) {
    struct gd_side_stream *to = &open_run->sides[side];
    if (gd_open_run_has_side(open_run, side))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams", "streams has %s twice", side_names[side]);
    int result = read_stream(stream, &to->element_type, &to->stated_elements, &to->stride, ret_error);
    if (result == 0 && side != GD_SIDE_OUTPUTS && stream->has_examples)
        result =
            gd_error_set(ret_error, GD_ERROR_INVALID, "examples", "examples is %llu, for %s; OUTPUTS alone has any",
                         (unsigned long long)stream->examples, side_names[side]);
    to->examples = stream->examples;
    if (result == 0 && side == GD_SIDE_OUTPUTS)
        result = check_outputs(to, ret_error);
    to->elements = side == GD_SIDE_OUTPUTS ? to->stated_elements : 1;
    to->lags = side == GD_SIDE_PROBE_GRADIENT ? open_run->max_lag : 1;
    return result;
}

int gd_decode_streams(const Gradientd__OpenRun *message, struct gd_open_run *open_run, struct gd_error *ret_error) {
    bool has_gradient = false;

    for (size_t i = 0; i < message->n_streams; i++) {
        const Gradientd__Stream *stream = message->streams[i];
        enum gd_side side = side_of(stream->kind);
        int result;
        if (side < GD_SIDES)
            result = read_side(stream, side, open_run, ret_error);
        else if (stream->kind != GRADIENTD__STREAM_KIND__GRADIENT || has_gradient)
            result = gd_error_set(ret_error, GD_ERROR_INVALID, "streams",
                                  "streams[%zu].kind is %d; GRADIENT (1) to OUTPUTS (4) may come once each", i,
                                  (int)stream->kind);
        else
            result =
                read_stream(stream, &open_run->element_type, &open_run->stated_elements, &open_run->stride, ret_error);
        if (result < 0)
            return result;
        has_gradient |= side == GD_SIDES;
    }
    if (has_gradient)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "streams",
                        "streams has %zu entries and no GRADIENT, without which no run is supported",
                        message->n_streams);
}

static int check_stated(const char *name, uint64_t stated, uint64_t elements, struct gd_error *ret_error) {
    if (stated == UINT64_MAX || stated == elements)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_INVALID, "elements",
                        "elements of %s is %llu, the groups' numel add up to %llu", name, (unsigned long long)stated,
                        (unsigned long long)elements);
}

int gd_decode_streams_end(struct gd_open_run *open_run, struct gd_error *ret_error) {
    int result = check_stated("GRADIENT", open_run->stated_elements, open_run->elements, ret_error);
    for (enum gd_side side = 0; result == 0 && side < GD_SIDES; side++) {
        struct gd_side_stream *stream = &open_run->sides[side];
        if (!gd_open_run_has_side(open_run, side) || side == GD_SIDE_OUTPUTS)
            continue;
        stream->elements = open_run->elements;
        result = check_stated(side_names[side], stream->stated_elements, open_run->elements, ret_error);
    }
    return result;
}

int gd_decode_snapshot_streams(const Gradientd__Snapshot *message, const Gradientd__StreamElements **ret_gradient,
                               struct gd_error *ret_error) {
    uint32_t seen = 0;

    *ret_gradient = NULL;
    for (size_t i = 0; i < message->n_streams; i++) {
        const Gradientd__StreamElements *elements = message->streams[i];
        enum gd_side side = side_of(elements->kind);
        if ((side == GD_SIDES && elements->kind != GRADIENTD__STREAM_KIND__GRADIENT) || seen >> side & 1)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "streams",
                                "streams[%zu].kind is %d; GRADIENT (1) to OUTPUTS (4) may come once each", i,
                                (int)elements->kind);
        if (side < GD_SIDES && (!elements->has_slot || elements->has_inline_bytes || elements->deflated))
            return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "streams.inline_bytes",
                                "streams[%zu] has %s without a slot; GRADIENT alone may come inline", i,
                                side_names[side]);
        seen |= UINT32_C(1) << side;
        if (side == GD_SIDES)
            *ret_gradient = elements;
    }
    if (*ret_gradient)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "streams",
                        "streams has %zu entries and no GRADIENT, which every Snapshot must have", message->n_streams);
}

void gd_decode_snapshot_sides(const Gradientd__Snapshot *message, struct gd_submission *submission) {
    for (size_t i = 0; i < message->n_streams; i++) {
        enum gd_side side = side_of(message->streams[i]->kind);
        if (side == GD_SIDES)
            continue;
        submission->sides |= UINT32_C(1) << side;
        submission->side_slot[side] = message->streams[i]->slot;
    }
}
