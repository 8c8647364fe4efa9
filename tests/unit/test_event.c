#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "event.h"
#include "event_records.h"
#include "tensorboard.pb-c.h"

#define WALL_TIME 1700000000.5

// Checks a record's framing at *offset, moves it behind the record and unpacks its event.
static Tensorboard__Event *next_event(const struct gd_record_buffer *buffer, size_t *offset) {
    const uint8_t *record = buffer->data + *offset;
    cr_assert_leq(*offset + GD_RECORD_OVERHEAD_BYTES, buffer->used);
    uint64_t bytes = gd_read_u64le(record);
    cr_assert_leq(bytes, buffer->used - *offset - GD_RECORD_OVERHEAD_BYTES);
    cr_assert_eq(gd_read_u32le(record + 8), gd_crc32c_masked(record, 8));
    cr_assert_eq(gd_read_u32le(record + 12 + bytes), gd_crc32c_masked(record + 12, bytes));

    Tensorboard__Event *event = tensorboard__event__unpack(NULL, bytes, record + 12);
    cr_assert_not_null(event);
    *offset += bytes + GD_RECORD_OVERHEAD_BYTES;
    return event;
}

static Tensorboard__Event *only_event(const struct gd_record_buffer *buffer) {
    size_t offset = 0;
    Tensorboard__Event *event = next_event(buffer, &offset);
    cr_assert_eq(offset, buffer->used);
    return event;
}

// Vectors below come from TensorBoard's own generated classes and checksum, serialised in Python.

Test(event, start_records_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_start(&buffer, WALL_TIME, 1);
    assert_bytes(&buffer, "2500000000000000eabc36f30900002040fc54d9411a0d627261696e2e4576656e743a32"
                          "520b0a096772616469656e7464dc81feb9"
                          "0f000000000000006d532b090900002040fc54d94110013a020801e50ad869");
}

Test(event, stop_record_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_stop(&buffer, WALL_TIME, 1000);
    assert_bytes(&buffer, "100000000000000095fbfe180900002040fc54d94110e8073a020802e39fea3e");
}

Test(event, scalar_with_metadata_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_scalars(&buffer, WALL_TIME, 7, (struct gd_scalar[]){gd_scalar_of("train/loss", 0.25f, "")}, 1);
    assert_bytes(&buffer, "2f000000000000006d5d1d500900002040fc54d94110072a220a200a0a747261696e2f6c6f7373"
                          "150000803e4a0d0a090a077363616c61727320013d90548d");
}

Test(event, scalar_with_description_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_scalars(&buffer, WALL_TIME, 7, (struct gd_scalar[]){gd_scalar_of("train/loss", 0.25f, "`x`")}, 1);
    assert_bytes(&buffer, "34000000000000005e33175c0900002040fc54d94110072a270a250a0a747261696e2f6c6f7373"
                          "150000803e4a120a090a077363616c6172731a0360786020017f2bcffc");
}

Test(event, step_0_is_left_out_and_zero_values_are_not) {
    struct gd_record_buffer buffer = empty_buffer();
    const struct gd_scalar scalars[] = {gd_scalar_of("a", 0.0f, NULL), gd_scalar_of("b", INFINITY, NULL)};
    gd_event_append_scalars(&buffer, WALL_TIME, 0, scalars, 2);
    assert_bytes(&buffer, "1f00000000000000514b44180900002040fc54d9412a140a080a016115000000000a080a01621500"
                          "00807f28b19986");
}

Test(event, negative_step_takes_ten_bytes) {
    struct gd_record_buffer buffer = empty_buffer();
    const struct gd_scalar scalars[] = {gd_scalar_of("a", 0.0f, NULL), gd_scalar_of("b", INFINITY, NULL)};
    gd_event_append_scalars(&buffer, WALL_TIME, -1, scalars, 2);
    assert_bytes(&buffer, "2a00000000000000ae8d91f50900002040fc54d94110ffffffffffffffffff012a140a080a0161150000"
                          "00000a080a0162150000807f72c7096e");
}

Test(event, no_scalars_is_no_record) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_scalars(&buffer, WALL_TIME, 7, NULL, 0);
    cr_assert_eq(buffer.used, 0);
}

Test(event, records_append) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_start(&buffer, WALL_TIME, 40);
    gd_event_append_scalars(&buffer, WALL_TIME + 1, 41, (struct gd_scalar[]){gd_scalar_of("a", 1.0f, NULL)}, 1);
    gd_event_append_stop(&buffer, WALL_TIME + 2, 41);

    const int64_t steps[] = {0, 40, 41, 41};
    const double wall_times[] = {WALL_TIME, WALL_TIME, WALL_TIME + 1, WALL_TIME + 2};
    size_t offset = 0;
    for (size_t i = 0; i < 4; i++) {
        Tensorboard__Event *event = next_event(&buffer, &offset);
        cr_assert_eq(event->step, steps[i]);
        cr_assert_eq(event->wall_time, wall_times[i]);
        tensorboard__event__free_unpacked(event, NULL);
    }
    cr_assert_eq(offset, buffer.used);
}

Test(event, metadata_only_when_asked) {
    struct gd_record_buffer buffer = empty_buffer();
    const struct gd_scalar scalars[] = {gd_scalar_of("a", 1.0f, NULL), gd_scalar_of("b", 2.0f, ""),
                                        gd_scalar_of("c", 3.0f, "what c is")};
    gd_event_append_scalars(&buffer, WALL_TIME, 7, scalars, 3);

    Tensorboard__Event *event = only_event(&buffer);
    cr_assert_eq(event->what_case, TENSORBOARD__EVENT__WHAT_SUMMARY);
    cr_assert_eq(event->summary->n_value, 3);
    Tensorboard__Summary__Value **values = event->summary->value;
    cr_assert_null(values[0]->metadata);
    for (size_t i = 1; i < 3; i++) {
        cr_assert_str_eq(values[i]->metadata->plugin_data->plugin_name, "scalars");
        cr_assert_eq(values[i]->metadata->data_class, TENSORBOARD__DATA_CLASS__DATA_CLASS_SCALAR);
    }
    cr_assert_null(values[1]->metadata->summary_description);
    cr_assert_str_eq(values[2]->metadata->summary_description, "what c is");
    tensorboard__event__free_unpacked(event, NULL);
}

Test(event, every_float_survives) {
    const float floats[] = {0.0f, -0.0f, 1e-45f, 3.4028235e38f, INFINITY, -INFINITY, NAN};
    struct gd_record_buffer buffer = empty_buffer();
    struct gd_scalar scalars[sizeof(floats) / sizeof(floats[0])];
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        scalars[i] = gd_scalar_of("x", floats[i], NULL);
    gd_event_append_scalars(&buffer, WALL_TIME, 7, scalars, sizeof(floats) / sizeof(floats[0]));

    Tensorboard__Event *event = only_event(&buffer);
    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        cr_assert_eq(memcmp(&event->summary->value[i]->simple_value, &floats[i], sizeof(float)), 0, "value %zu", i);
    tensorboard__event__free_unpacked(event, NULL);
}

// Lengths on both sides of every size of varint a summary meets.
Test(event, many_scalars_round_trip_within_the_bound) {
    enum { N = 1024 };
    static char tags[N][256];
    static char descriptions[N][700];
    static struct gd_scalar scalars[N];
    size_t bound_bytes = 0;

    for (size_t i = 0; i < N; i++) {
        memset(tags[i], 'a' + (char)(i % 26), 1 + i % 255);
        memset(descriptions[i], 'd', i % 699);
        scalars[i] = gd_scalar_of(tags[i], (float)i, i % 3 == 0 ? NULL : descriptions[i]);
        bound_bytes += gd_event_scalar_bytes_max(strlen(tags[i]), i % 3 == 0 ? 0 : strlen(descriptions[i]));

        struct gd_record_buffer buffer = empty_buffer();
        gd_event_append_scalars(&buffer, WALL_TIME, INT64_MIN, scalars, i + 1);
        cr_assert_leq(buffer.used, bound_bytes, "%zu scalars: %zu > %zu", i + 1, buffer.used, bound_bytes);
    }

    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_scalars(&buffer, WALL_TIME, INT64_MAX, scalars, N);
    Tensorboard__Event *event = only_event(&buffer);
    cr_assert_eq(event->step, INT64_MAX);
    cr_assert_eq(event->summary->n_value, N);
    for (size_t i = 0; i < N; i++) {
        cr_assert_str_eq(event->summary->value[i]->tag, tags[i]);
        cr_assert_eq(event->summary->value[i]->simple_value, (float)i);
    }
    tensorboard__event__free_unpacked(event, NULL);
}

Test(event, bound_of_one_scalar_is_reached) {
    static char tag[256];
    static char description[1000];
    for (size_t tag_bytes = 0; tag_bytes < sizeof(tag); tag_bytes++) {
        for (size_t description_bytes = 0; description_bytes < sizeof(description); description_bytes += 37) {
            memset(tag, 't', tag_bytes);
            memset(description, 'd', description_bytes);
            description[description_bytes] = '\0';
            struct gd_record_buffer buffer = empty_buffer();
            gd_event_append_scalars(&buffer, WALL_TIME, -1, (struct gd_scalar[]){gd_scalar_of(tag, 1.0f, description)},
                                    1);
            cr_assert_eq(buffer.used, gd_event_scalar_bytes_max(tag_bytes, description_bytes), "tag %zu, text %zu",
                         tag_bytes, description_bytes);
        }
    }
}

Test(event, a_record_may_fill_the_buffer) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_stop(&buffer, WALL_TIME, 1000);
    buffer = (struct gd_record_buffer){.data = empty_buffer().data, .capacity = buffer.used};
    gd_event_append_stop(&buffer, WALL_TIME, 1000);
    cr_assert_eq(buffer.used, buffer.capacity);
}

Test(event, a_record_that_does_not_fit_is_a_fault, .signal = SIGABRT) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_stop(&buffer, WALL_TIME, 1000);
    buffer = (struct gd_record_buffer){.data = empty_buffer().data, .capacity = buffer.used - 1};
    gd_event_append_stop(&buffer, WALL_TIME, 1000);
}
