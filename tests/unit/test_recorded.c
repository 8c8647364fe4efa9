// Records of a recording: what is packed is unpacked again, and what is not right is refused.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "example.pb-c.h"
#include "recorded.h"

enum { ARENA_BYTES = 1 << 20, PACKED_BYTES_MAX = 4096, FEATURES_MAX = 8 };

static struct gd_arena arena;

static void set_up(void) {
    cr_assert_eq(gd_arena_init(&arena, ARENA_BYTES), 0);
}

static void tear_down(void) {
    gd_arena_deinit(&arena);
}

TestSuite(recorded, .init = set_up, .fini = tear_down);

static struct gd_recorded_bytes bytes_of(const char *text) {
    return (struct gd_recorded_bytes){(const uint8_t *)text, strlen(text)};
}

static bool are_equal(struct gd_recorded_bytes a, struct gd_recorded_bytes b) {
    return (a.data == NULL) == (b.data == NULL) && a.bytes == b.bytes &&
           (!a.data || memcmp(a.data, b.data, a.bytes) == 0);
}

static void check_round_trip(const struct gd_recorded *recorded) {
    uint8_t packed[PACKED_BYTES_MAX];
    struct gd_recorded found;
    const char *reason = "";
    size_t bytes = gd_recorded_packed_bytes(recorded);
    cr_assert(bytes > 0 && bytes <= sizeof(packed));
    gd_recorded_pack(recorded, packed);
    gd_arena_reset(&arena);
    cr_assert_eq(gd_recorded_unpack(packed, bytes, &arena, &found, &reason), 0, "%s", reason);
    cr_assert_eq(found.kind, recorded->kind);
    cr_assert(are_equal(found.message, recorded->message));
    cr_assert(are_equal(found.payload, recorded->payload));
    cr_assert(are_equal(found.text, recorded->text));
    cr_assert_eq(found.has_step, recorded->has_step);
    cr_assert_eq(found.step, recorded->step);
    cr_assert_eq(found.format, recorded->format);
    cr_assert_eq(found.inline_elements, recorded->inline_elements);
    cr_assert_eq(found.outcome, recorded->outcome);
    for (int stream = 0; stream < GD_RECORDED_STREAMS; stream++) {
        cr_assert(are_equal(found.elements[stream].bytes, recorded->elements[stream].bytes), "%s",
                  gd_recorded_stream_name((enum gd_recorded_stream)stream));
        if (recorded->elements[stream].bytes.data)
            cr_assert_eq(found.elements[stream].type, recorded->elements[stream].type);
    }
}

Test(recorded, every_kind_comes_back_as_it_was) {
    struct gd_recorded snapshot = {.kind = GD_RECORDED_SNAPSHOT,
                                   .message = bytes_of("message"),
                                   .has_step = true,
                                   .step = -1};
    for (int stream = 0; stream < GD_RECORDED_STREAMS; stream++)
        snapshot.elements[stream] =
            (struct gd_recorded_elements){bytes_of(gd_recorded_stream_name((enum gd_recorded_stream)stream)),
                                          (enum gd_element_type)(stream % 3 + 1)};
    check_round_trip(&snapshot);
    check_round_trip(&(struct gd_recorded){.kind = GD_RECORDED_RECORDING, .format = 7, .text = bytes_of("gradientd")});
    check_round_trip(&(struct gd_recorded){
        .kind = GD_RECORDED_OPEN_RUN, .message = bytes_of("m"), .payload = bytes_of(""), .inline_elements = 1});
    check_round_trip(&(struct gd_recorded){.kind = GD_RECORDED_START_VECTOR, .message = bytes_of("")});
    check_round_trip(
        &(struct gd_recorded){.kind = GD_RECORDED_SCALARS, .message = bytes_of("m"), .has_step = true, .step = 1});
    check_round_trip(&(struct gd_recorded){.kind = GD_RECORDED_CLOSE_RUN, .message = bytes_of("m")});
    for (int outcome = 0; outcome < GD_RECORDED_OUTCOMES; outcome++)
        check_round_trip(&(struct gd_recorded){.kind = GD_RECORDED_END, .outcome = (enum gd_recorded_outcome)outcome});
}

Test(recorded, what_protobuf_cannot_hold_has_no_size) {
    struct gd_recorded recorded = {.kind = GD_RECORDED_SNAPSHOT, .message = bytes_of("m")};
    recorded.elements[GD_RECORDED_GRADIENT].bytes = (struct gd_recorded_bytes){recorded.message.data, 1 << 30};
    recorded.elements[GD_RECORDED_GRADIENT].type = GD_F32;
    cr_assert_gt(gd_recorded_packed_bytes(&recorded), 1 << 30);
    recorded.elements[GD_RECORDED_OUTPUTS] = recorded.elements[GD_RECORDED_GRADIENT];
    cr_assert_eq(gd_recorded_packed_bytes(&recorded), 0);
    recorded.elements[GD_RECORDED_OUTPUTS].bytes.bytes = (1 << 30) - 100; // with its frame it is too much
    cr_assert_eq(gd_recorded_packed_bytes(&recorded), 0);
}

// ---- Examples that others write

// A feature of an Example: text, or else a number; of `n` values.
struct feature {
    char key[32];
    char text[32];
    int64_t number;
    size_t n; // 0: 1
};

static size_t pack(const struct feature *features, size_t n_features, uint8_t *ret_packed) {
    Tensorflow__BytesList bytes_lists[FEATURES_MAX];
    Tensorflow__Int64List int64_lists[FEATURES_MAX];
    Tensorflow__Feature values[FEATURES_MAX];
    Tensorflow__FeatureEntry entries[FEATURES_MAX], *pointers[FEATURES_MAX];
    ProtobufCBinaryData data[FEATURES_MAX][2];
    int64_t numbers[FEATURES_MAX][2];
    struct feature copies[FEATURES_MAX]; // whose bytes may be pointed to without const
    Tensorflow__Features list = TENSORFLOW__FEATURES__INIT;
    Tensorflow__Example example = TENSORFLOW__EXAMPLE__INIT;

    for (size_t i = 0; i < n_features; i++) {
        struct feature *feature = &copies[i];
        *feature = features[i];
        tensorflow__bytes_list__init(&bytes_lists[i]);
        tensorflow__int64_list__init(&int64_lists[i]);
        tensorflow__feature__init(&values[i]);
        tensorflow__feature_entry__init(&entries[i]);
        for (int value = 0; value < 2; value++) {
            data[i][value] = (ProtobufCBinaryData){strlen(feature->text), (uint8_t *)feature->text};
            numbers[i][value] = feature->number;
        }
        bytes_lists[i].n_value = int64_lists[i].n_value = feature->n ? feature->n : 1;
        bytes_lists[i].value = data[i];
        int64_lists[i].value = numbers[i];
        bool is_text = feature->text[0] != '\0';
        values[i].kind_case = is_text ? TENSORFLOW__FEATURE__KIND_BYTES_LIST : TENSORFLOW__FEATURE__KIND_INT64_LIST;
        if (is_text)
            values[i].bytes_list = &bytes_lists[i];
        else
            values[i].int64_list = &int64_lists[i];
        entries[i].key = feature->key;
        entries[i].value = &values[i];
        pointers[i] = &entries[i];
    }
    list.n_feature = n_features;
    list.feature = pointers;
    example.features = &list;
    return tensorflow__example__pack(&example, ret_packed);
}

static const struct {
    const char *reason; // NULL: it is right
    struct feature features[FEATURES_MAX];
} others[] = {
    {NULL, {{"kind", "Scalars", 0, 0}, {"message", "m", 0, 0}, {"step", "", 4, 0}}},
    {NULL, {{"message", "m", 0, 0}, {"added later", "by somebody", 0, 2}, {"kind", "StartVector", 0, 0}}},
    {"kind", {{"message", "m", 0, 0}}},
    {"kind", {{"kind", "Snapshots", 0, 0}, {"message", "m", 0, 0}}},
    {"one bytes value", {{"kind", "", 3, 0}, {"message", "m", 0, 0}}},
    {"twice", {{"kind", "Scalars", 0, 0}, {"message", "m", 0, 0}, {"message", "n", 0, 0}}},
    {"one bytes value", {{"kind", "Scalars", 0, 0}, {"message", "m", 0, 2}}},
    {"one bytes value", {{"kind", "Scalars", 0, 0}, {"message", "m", 0, 0}, {"payload", "", 1, 0}}},
    {"one int64", {{"kind", "Scalars", 0, 0}, {"message", "m", 0, 0}, {"step", "4", 0, 0}}},
    {"one int64", {{"kind", "Scalars", 0, 0}, {"message", "m", 0, 0}, {"step", "", 4, 2}}},
    {"no message", {{"kind", "CloseRun", 0, 0}}},
    {"type", {{"kind", "Snapshot", 0, 0}, {"message", "m", 0, 0}, {"gradient", "gggg", 0, 0}}},
    {"type",
     {{"kind", "Snapshot", 0, 0}, {"message", "m", 0, 0}, {"gradient", "g", 0, 0}, {"gradient_type", "f64", 0, 0}}},
    {"format", {{"kind", "Recording", 0, 0}}},
    {"elements come", {{"kind", "OpenRun", 0, 0}, {"message", "m", 0, 0}}},
    {"outcome", {{"kind", "End", 0, 0}}},
    {"outcome", {{"kind", "End", 0, 0}, {"outcome", "lost", 0, 0}}},
};

Test(recorded, what_others_write_is_looked_at) {
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        uint8_t packed[PACKED_BYTES_MAX];
        struct gd_recorded found;
        const char *reason = NULL;
        size_t n_features = 0;
        while (n_features < FEATURES_MAX && others[i].features[n_features].key[0] != '\0')
            n_features++;
        size_t bytes = pack(others[i].features, n_features, packed);
        gd_arena_reset(&arena);
        int result = gd_recorded_unpack(packed, bytes, &arena, &found, &reason);
        cr_expect_eq(result, others[i].reason ? -EBADMSG : 0, "row %zu: %d", i, result);
        if (others[i].reason)
            cr_expect(reason && strstr(reason, others[i].reason), "row %zu: %s", i, reason ? reason : "no reason");
    }
}

Test(recorded, what_is_no_example_is_refused) {
    static const uint8_t garbage[] = {0x0a, 0x7f, 1};
    struct gd_recorded found;
    const char *reason = NULL;
    cr_assert_eq(gd_recorded_unpack(garbage, sizeof(garbage), &arena, &found, &reason), -EBADMSG);
    cr_assert(strstr(reason, "no tf.train.Example"));
    cr_assert_eq(gd_recorded_unpack(NULL, 0, &arena, &found, &reason), -EBADMSG);
    cr_assert(strstr(reason, "kind"));
}

Test(recorded, an_example_that_takes_too_much_is_refused) {
    uint8_t packed[PACKED_BYTES_MAX];
    struct gd_recorded found;
    struct gd_arena small;
    const char *reason = NULL;
    size_t bytes = pack(others[0].features, 3, packed);
    cr_assert_eq(gd_arena_init(&small, 100), 0);
    cr_assert_eq(gd_recorded_unpack(packed, bytes, &small, &found, &reason), -EBADMSG);
    cr_assert(strstr(reason, "memory"));
    gd_arena_deinit(&small);
}
