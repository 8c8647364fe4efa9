#include "recorded.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "example.pb-c.h"

enum {
    // kind, message, payload, step, and one more of a kind; two of each stream
    FEATURES_MAX = 6 + 2 * GD_RECORDED_STREAMS,
    KEY_BYTES = 48,
};

static const char *const kind_names[GD_RECORDED_KINDS] = {
    [GD_RECORDED_RECORDING] = "Recording",
    [GD_RECORDED_OPEN_RUN] = "OpenRun",
    [GD_RECORDED_START_VECTOR] = "StartVector",
    [GD_RECORDED_SNAPSHOT] = "Snapshot",
    [GD_RECORDED_SCALARS] = "Scalars",
    [GD_RECORDED_CLOSE_RUN] = "CloseRun",
    [GD_RECORDED_END] = "End",
};

static const char *const outcome_names[GD_RECORDED_OUTCOMES] = {
    [GD_RECORDED_CLOSED] = "closed",
    [GD_RECORDED_TRAINER_GONE] = "trainer_gone",
    [GD_RECORDED_REFUSED] = "refused",
    [GD_RECORDED_LEFT] = "left",
};

static const char *const stream_names[GD_RECORDED_STREAMS] = {
    [GD_RECORDED_GRADIENT] = "gradient",
    [GD_RECORDED_PROBE_GRADIENT] = "probe_gradient",
    [GD_RECORDED_PARAMETERS] = "parameters",
    [GD_RECORDED_OUTPUTS] = "outputs",
    [GD_RECORDED_START_SECOND_MOMENT] = "start_second_moment",
    [GD_RECORDED_START_SECOND_MOMENT_MAX] = "start_second_moment_max",
    [GD_RECORDED_START_PARAMETERS] = "start_parameters",
    [GD_RECORDED_START_OUTPUTS] = "start_outputs",
};

static const char *const type_names[] = {[GD_F32] = "f32", [GD_BF16] = "bf16", [GD_F16] = "f16"};

enum { TYPES = sizeof(type_names) / sizeof(type_names[0]) };

const char *gd_recorded_kind_name(enum gd_recorded_kind kind) {
    return kind_names[kind];
}

const char *gd_recorded_stream_name(enum gd_recorded_stream stream) {
    return stream_names[stream];
}

const char *gd_recorded_outcome_name(enum gd_recorded_outcome outcome) {
    return outcome_names[outcome];
}

// One feature, with all that protobuf-c wants to point to.
struct feature {
    char key[KEY_BYTES];
    ProtobufCBinaryData data;
    int64_t number;
    Tensorflow__BytesList bytes_list;
    Tensorflow__Int64List int64_list;
    Tensorflow__Feature value;
    Tensorflow__FeatureEntry entry;
};

struct example {
    struct feature features[FEATURES_MAX];
    Tensorflow__FeatureEntry *entries[FEATURES_MAX];
    Tensorflow__Features list;
    Tensorflow__Example example;
};

static struct feature *add_feature(struct example *example, const char *key, const char *suffix) {
    struct feature *feature = &example->features[example->list.n_feature];
    snprintf(feature->key, sizeof(feature->key), "%s%s", key, suffix);
    feature->value = (Tensorflow__Feature)TENSORFLOW__FEATURE__INIT;
    feature->entry = (Tensorflow__FeatureEntry)TENSORFLOW__FEATURE_ENTRY__INIT;
    feature->entry.key = feature->key;
    feature->entry.value = &feature->value;
    example->entries[example->list.n_feature++] = &feature->entry;
    return feature;
}

static void add_bytes(struct example *example, const char *key, const char *suffix, struct gd_recorded_bytes bytes) {
    union { // protobuf-c's fields are not const, and nothing writes to them before the message is packed
        const uint8_t *borrowed;
        uint8_t *field;
    } pointer = {.borrowed = bytes.data};
    if (!bytes.data)
        return;
    struct feature *feature = add_feature(example, key, suffix);
    feature->data = (ProtobufCBinaryData){bytes.bytes, pointer.field};
    feature->bytes_list = (Tensorflow__BytesList)TENSORFLOW__BYTES_LIST__INIT;
    feature->bytes_list.n_value = 1;
    feature->bytes_list.value = &feature->data;
    feature->value.kind_case = TENSORFLOW__FEATURE__KIND_BYTES_LIST;
    feature->value.bytes_list = &feature->bytes_list;
}

static void add_text(struct example *example, const char *key, const char *suffix, const char *text) {
    add_bytes(example, key, suffix, (struct gd_recorded_bytes){(const uint8_t *)text, strlen(text)});
}

static void add_number(struct example *example, const char *key, int64_t number) {
    struct feature *feature = add_feature(example, key, "");
    feature->number = number;
    feature->int64_list = (Tensorflow__Int64List)TENSORFLOW__INT64_LIST__INIT;
    feature->int64_list.n_value = 1;
    feature->int64_list.value = &feature->number;
    feature->value.kind_case = TENSORFLOW__FEATURE__KIND_INT64_LIST;
    feature->value.int64_list = &feature->int64_list;
}

static void describe(const struct gd_recorded *recorded, struct example *example) {
    example->list = (Tensorflow__Features)TENSORFLOW__FEATURES__INIT;
    example->list.feature = example->entries;
    example->example = (Tensorflow__Example)TENSORFLOW__EXAMPLE__INIT;
    example->example.features = &example->list;

    add_text(example, "kind", "", kind_names[recorded->kind]);
    add_bytes(example, "message", "", recorded->message);
    add_bytes(example, "payload", "", recorded->payload);
    if (recorded->has_step)
        add_number(example, "step", recorded->step);
    if (recorded->kind == GD_RECORDED_RECORDING)
        add_number(example, "format", recorded->format);
    if (recorded->kind == GD_RECORDED_OPEN_RUN)
        add_number(example, "inline", recorded->inline_elements);
    if (recorded->kind == GD_RECORDED_END)
        add_text(example, "outcome", "", outcome_names[recorded->outcome]);
    add_bytes(example, "text", "", recorded->text);
    for (int stream = 0; stream < GD_RECORDED_STREAMS; stream++) {
        if (!recorded->elements[stream].bytes.data)
            continue;
        add_bytes(example, stream_names[stream], "", recorded->elements[stream].bytes);
        add_text(example, stream_names[stream], "_type", type_names[recorded->elements[stream].type]);
    }
}

size_t gd_recorded_packed_bytes(const struct gd_recorded *recorded) {
    struct example example = {0};
    uint64_t parts = recorded->message.bytes + recorded->payload.bytes + recorded->text.bytes;
    for (int stream = 0; stream < GD_RECORDED_STREAMS; stream++)
        parts += recorded->elements[stream].bytes.bytes;
    if (parts > GD_RECORDED_BYTES_MAX)
        return 0;
    describe(recorded, &example);
    size_t bytes = tensorflow__example__get_packed_size(&example.example);
    return bytes <= GD_RECORDED_BYTES_MAX ? bytes : 0;
}

void gd_recorded_pack(const struct gd_recorded *recorded, uint8_t *ret_data) {
    struct example example = {0};
    describe(recorded, &example);
    tensorflow__example__pack(&example.example, ret_data);
}

// Whether `bytes` are just the text.
static bool is_text(const ProtobufCBinaryData *bytes, const char *text) {
    return bytes->len == strlen(text) && memcmp(bytes->data, text, bytes->len) == 0;
}

// The index of a name, or -1.
static int find_name(const ProtobufCBinaryData *bytes, const char *const *names, int n_names) {
    for (int i = 0; i < n_names; i++)
        if (names[i] && is_text(bytes, names[i]))
            return i;
    return -1;
}

// What has been found of an Example.
struct reading {
    const Tensorflow__Features *features;
    const char *reason; // what is wrong, NULL: nothing
};

// The first fault counts: others follow from it.
static void blame(struct reading *reading, const char *reason) {
    if (!reading->reason)
        reading->reason = reason;
}

static const Tensorflow__Feature *find_feature(struct reading *reading, const char *key, const char *suffix) {
    const Tensorflow__Feature *found = NULL;
    char name[KEY_BYTES];
    snprintf(name, sizeof(name), "%s%s", key, suffix);
    for (size_t i = 0; reading->features && i < reading->features->n_feature; i++) {
        const Tensorflow__FeatureEntry *entry = reading->features->feature[i];
        if (!entry->key || !entry->value || strcmp(entry->key, name) != 0)
            continue;
        if (found)
            blame(reading, "it has a feature twice");
        found = entry->value;
    }
    return found;
}

static const ProtobufCBinaryData *find_bytes(struct reading *reading, const char *key, const char *suffix) {
    const Tensorflow__Feature *feature = find_feature(reading, key, suffix);
    if (!feature)
        return NULL;
    if (feature->kind_case == TENSORFLOW__FEATURE__KIND_BYTES_LIST && feature->bytes_list->n_value == 1)
        return &feature->bytes_list->value[0];
    blame(reading, "a feature that must be one bytes value is not");
    return NULL;
}

static void read_bytes(struct reading *reading, const char *key, struct gd_recorded_bytes *ret_bytes) {
    static const uint8_t none[1] = {0}; // protobuf-c has no pointer for what is empty
    const ProtobufCBinaryData *bytes = find_bytes(reading, key, "");
    if (bytes)
        *ret_bytes = (struct gd_recorded_bytes){bytes->data ? bytes->data : none, bytes->len};
}

// Returns whether it is there.
static bool read_number(struct reading *reading, const char *key, int64_t *ret_number) {
    const Tensorflow__Feature *feature = find_feature(reading, key, "");
    if (!feature)
        return false;
    if (feature->kind_case != TENSORFLOW__FEATURE__KIND_INT64_LIST || feature->int64_list->n_value != 1) {
        blame(reading, "a feature that must be one int64 is not");
        return false;
    }
    *ret_number = feature->int64_list->value[0];
    return true;
}

// Returns the index of the text that the feature is, or -1, which is a fault.
static int read_name(struct reading *reading, const char *key, const char *suffix, const char *const *names,
                     int n_names, const char *fault) {
    const ProtobufCBinaryData *bytes = find_bytes(reading, key, suffix);
    int found = bytes ? find_name(bytes, names, n_names) : -1;
    if (found < 0)
        blame(reading, fault);
    return found;
}

static void read_elements(struct reading *reading, struct gd_recorded *recorded) {
    for (int stream = 0; stream < GD_RECORDED_STREAMS; stream++) {
        struct gd_recorded_elements *elements = &recorded->elements[stream];
        read_bytes(reading, stream_names[stream], &elements->bytes);
        if (!elements->bytes.data)
            continue;
        int type =
            read_name(reading, stream_names[stream], "_type", type_names, TYPES, "it has elements of no known type");
        elements->type = type < 0 ? GD_F32 : (enum gd_element_type)type;
    }
}

static void read_example(struct reading *reading, struct gd_recorded *recorded) {
    int kind = read_name(reading, "kind", "", kind_names, GD_RECORDED_KINDS, "its kind is none that is known");
    recorded->kind = kind < 0 ? GD_RECORDED_END : (enum gd_recorded_kind)kind;
    read_bytes(reading, "message", &recorded->message);
    read_bytes(reading, "payload", &recorded->payload);
    read_bytes(reading, "text", &recorded->text);
    recorded->has_step = read_number(reading, "step", &recorded->step);
    read_elements(reading, recorded);
    if (kind == GD_RECORDED_RECORDING && !read_number(reading, "format", &recorded->format))
        blame(reading, "it does not say its format");
    if (kind == GD_RECORDED_OPEN_RUN && !read_number(reading, "inline", &recorded->inline_elements))
        blame(reading, "it does not say how the elements come");
    if (kind == GD_RECORDED_END) {
        int outcome = read_name(reading, "outcome", "", outcome_names, GD_RECORDED_OUTCOMES, "it has no known outcome");
        recorded->outcome = outcome < 0 ? GD_RECORDED_LEFT : (enum gd_recorded_outcome)outcome;
    }
    bool has_message = kind != GD_RECORDED_RECORDING && kind != GD_RECORDED_END;
    if (has_message && !recorded->message.data)
        blame(reading, "it has no message");
}

int gd_recorded_unpack(const uint8_t *data, size_t bytes, struct gd_arena *arena, struct gd_recorded *ret_recorded,
                       const char **ret_reason) {
    struct gd_recorded recorded = {0};
    const Tensorflow__Example *example = tensorflow__example__unpack(&arena->allocator, bytes, data);
    if (!example) {
        *ret_reason = arena->exhausted ? "it takes too much memory to unpack" : "it is no tf.train.Example";
        return -EBADMSG;
    }
    struct reading reading = {.features = example->features};
    read_example(&reading, &recorded);
    if (reading.reason) {
        *ret_reason = reading.reason;
        return -EBADMSG;
    }
    *ret_recorded = recorded;
    return 0;
}
