#include "recording_seeds.h"

#include <assert.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "decode.h"
#include "element_places.h"
#include "gradientd.pb-c.h"
#include "open_runs.h"

enum {
    MESSAGE_BYTES_MAX = 2048,
    ELEMENT_BYTES_MAX = 4096,
    RATES_MAX = 8,
    STEPS = 2,
};

struct seed {
    const struct gd_open_run *open_run;
    struct gd_layout layout;
    bool is_inline;
    uint64_t sequence;
    uint8_t *data;
    size_t bytes, capacity;
};

static void add(struct seed *seed, const struct gd_recorded *recorded) {
    size_t bytes = gd_recorded_packed_bytes(recorded);
    uint8_t *at = seed->data + seed->bytes;
    assert(bytes > 0 && seed->bytes + bytes + 16 <= seed->capacity);
    gd_write_u64le(at, bytes);
    gd_write_u32le(at + 8, gd_crc32c_masked(at, 8));
    gd_recorded_pack(recorded, at + 12);
    gd_write_u32le(at + 12 + bytes, gd_crc32c_masked(at + 12, bytes));
    seed->bytes += bytes + 16;
}

// Points to elements where the message has some in a slot, as decode reads it.
static void point_to_elements(struct seed *seed, struct gd_recorded *recorded, const uint8_t *elements) {
    struct gd_element_place places[GD_ELEMENT_PLACES_MAX];
    struct gd_frame frame = {.message = recorded->message.data,
                             .message_bytes = (uint32_t)recorded->message.bytes,
                             .payload_bytes = (uint32_t)recorded->payload.bytes};
    struct gd_arena arena;
    struct gd_decoded decoded;
    struct gd_error error;
    int result = gd_arena_init(&arena, GD_DECODE_ARENA_BYTES);
    assert(result == 0);
    result = gd_decode(&frame, &arena, NULL, &decoded, &error);
    assert(result == 0 && decoded.kind == GD_CLIENT_SUBMISSION);
    int n_places = gd_element_places(seed->open_run, &seed->layout, decoded.submission, places);
    for (int i = 0; i < n_places; i++) {
        assert(places[i].bytes <= ELEMENT_BYTES_MAX);
        recorded->elements[places[i].stream] =
            (struct gd_recorded_elements){{elements, places[i].bytes}, places[i].type};
    }
    gd_submission_free(NULL, decoded.submission);
    gd_arena_deinit(&arena);
}

static void add_submission(struct seed *seed, enum gd_recorded_kind kind, const Gradientd__ClientMessage *message,
                           size_t payload_bytes) {
    static uint8_t packed[MESSAGE_BYTES_MAX], elements[ELEMENT_BYTES_MAX];
    assert(gradientd__client_message__get_packed_size(message) <= sizeof(packed) && payload_bytes <= sizeof(elements));
    for (size_t i = 0; i < sizeof(elements); i++)
        elements[i] = (uint8_t)(i % 4 < 2 ? 0 : i * i);
    struct gd_recorded recorded = {.kind = kind, .message = {packed, gradientd__client_message__pack(message, packed)}};
    if (payload_bytes > 0)
        recorded.payload = (struct gd_recorded_bytes){elements, payload_bytes};
    point_to_elements(seed, &recorded, elements);
    add(seed, &recorded);
}

static void set_elements(const struct seed *seed, Gradientd__StreamElements *elements, Gradientd__StreamKind kind,
                         uint32_t slot, size_t bytes) {
    gradientd__stream_elements__init(elements);
    elements->kind = kind;
    elements->has_slot = !seed->is_inline;
    elements->slot = slot;
    elements->has_inline_bytes = seed->is_inline;
    elements->inline_bytes = bytes;
}

static void add_start_vectors(struct seed *seed) {
    for (uint32_t start = 0; start < GD_STARTS; start++) {
        if (!(seed->open_run->starts >> start & 1))
            continue;
        Gradientd__StreamElements elements;
        Gradientd__StartVector body = GRADIENTD__START_VECTOR__INIT;
        Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
        size_t bytes = seed->open_run->elements * sizeof(float);
        set_elements(seed, &elements, (Gradientd__StreamKind)(GRADIENTD_START_KIND_MIN + start), 0, bytes);
        body.sequence = ++seed->sequence;
        body.elements = &elements;
        body.optimizer_step = 40;
        message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_START_VECTOR;
        message.start_vector = &body;
        add_submission(seed, GD_RECORDED_START_VECTOR, &message, seed->is_inline ? bytes : 0);
    }
}

static void add_snapshot(struct seed *seed, uint32_t index) {
    static const Gradientd__StreamKind kinds[] = {GRADIENTD__STREAM_KIND__PROBE_GRADIENT,
                                                  GRADIENTD__STREAM_KIND__PARAMETERS, GRADIENTD__STREAM_KIND__OUTPUTS};
    Gradientd__StreamElements elements[1 + GD_SIDES], *streams[1 + GD_SIDES];
    Gradientd__ParameterGroupStep rates[RATES_MAX], *rate_pointers[RATES_MAX];
    Gradientd__Snapshot body = GRADIENTD__SNAPSHOT__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    const struct gd_open_run *open_run = seed->open_run;
    size_t bytes = open_run->elements * gd_element_bytes(open_run->element_type);

    assert(open_run->n_parameter_groups <= RATES_MAX);
    for (uint32_t i = 0; i < open_run->n_parameter_groups; i++) {
        gradientd__parameter_group_step__init(&rates[i]);
        rates[i].learning_rate = 1e-3;
        rate_pointers[i] = &rates[i];
    }
    set_elements(seed, &elements[0], GRADIENTD__STREAM_KIND__GRADIENT, index, bytes);
    body.n_streams = 1;
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        if (gd_open_run_has_side(open_run, side))
            set_elements(seed, &elements[body.n_streams++], kinds[side], index + 1, 0);
    for (size_t i = 0; i < body.n_streams; i++)
        streams[i] = &elements[i];
    body.streams = streams;
    body.sequence = ++seed->sequence;
    body.step = open_run->first_step + index;
    body.has_optimizer_step = true;
    body.optimizer_step = 60 + index;
    body.wall_time = 1.7e9 + index;
    body.n_parameter_groups = open_run->n_parameter_groups;
    body.parameter_groups = rate_pointers;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    message.snapshot = &body;
    add_submission(seed, GD_RECORDED_SNAPSHOT, &message, seed->is_inline ? bytes : 0);
}

static void add_scalars(struct seed *seed) {
    char tag[] = "test/loss";
    Gradientd__Scalar scalar = GRADIENTD__SCALAR__INIT, *scalars[] = {&scalar};
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    scalar.tag = tag;
    body.sequence = ++seed->sequence;
    body.step = 7;
    body.wall_time = 1.7e9;
    body.n_scalars = 1;
    body.scalars = scalars;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;
    add_submission(seed, GD_RECORDED_SCALARS, &message, 0);
}

static void add_close(struct seed *seed) {
    Gradientd__CloseRun body = GRADIENTD__CLOSE_RUN__INIT;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    body.sequence = ++seed->sequence;
    body.outcome = GRADIENTD__OUTCOME__SUCCESS;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    message.close_run = &body;
    add_submission(seed, GD_RECORDED_CLOSE_RUN, &message, 0);
}

size_t recording_seed_write(int open_run, bool is_inline, uint8_t *ret_seed, size_t capacity) {
    struct open_run_message written;
    struct gd_open_run *read = open_runs_read(open_run);
    struct seed seed = {.open_run = read, .is_inline = is_inline, .data = ret_seed + 1, .capacity = capacity - 1};
    open_runs_write(open_run, &written);
    gd_layout_init(&seed.layout, read);
    ret_seed[0] = 1;
    add(&seed, &(struct gd_recorded){.kind = GD_RECORDED_RECORDING, .format = GD_RECORDING_FORMAT});
    add(&seed, &(struct gd_recorded){.kind = GD_RECORDED_OPEN_RUN,
                                     .message = {written.message, written.message_bytes},
                                     .payload = {written.table, written.table_bytes},
                                     .inline_elements = is_inline});
    add_start_vectors(&seed);
    for (uint32_t index = 0; index < STEPS; index++)
        add_snapshot(&seed, index);
    add_scalars(&seed);
    add_close(&seed);
    add(&seed, &(struct gd_recorded){.kind = GD_RECORDED_END, .outcome = GD_RECORDED_CLOSED});
    gd_open_run_free(read);
    return 1 + seed.bytes;
}
