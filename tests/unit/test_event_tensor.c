// Records of what is no scalar. The vectors come from TensorBoard's own generated classes and checksum, serialised in
// Python.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "bytes.h"
#include "event_records.h"
#include "event_tensor.h"
#include "tensorboard.pb-c.h"

#define WALL_TIME 1700000000.5

static void fill_bins(struct gd_histogram_bin bins[static GD_HISTOGRAM_BINS]) {
    for (int i = 0; i < GD_HISTOGRAM_BINS; i++)
        bins[i] = (struct gd_histogram_bin){i - 20.0, i - 19.0, i * i};
}

Test(event_tensor, text_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    const char *text = "größe **b**, of which this is not shown";
    gd_event_append_text(&buffer, WALL_TIME, 7, (struct gd_tensor_tag){"a/text", "what `a` is"}, text, 13);
    assert_bytes(&buffer,
                 "4500000000000000ebe668b00900002040fc54d94110072a380a360a06612f74657874421308071200420d6772c3b6c39f65"
                 "202a2a622a2a4a170a060a04746578741a0b776861742060616020697320023b008ed2");
}

Test(event_tensor, histogram_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    struct gd_histogram_bin bins[GD_HISTOGRAM_BINS];
    fill_bins(bins);
    gd_event_append_histogram(&buffer, WALL_TIME, 7, (struct gd_tensor_tag){"h", "`x`"}, bins);
    assert_bytes(&buffer,
                 "0d030000000000004627071b0900002040fc54d94110072aff050afc050a016842df05080212081202081e1202080332d005"
                 "00000000000034c000000000000033c0000000000000000000000000000033c000000000000032c0000000000000f03f0000"
                 "0000000032c000000000000031c0000000000000104000000000000031c000000000000030c0000000000000224000000000"
                 "000030c00000000000002ec000000000000030400000000000002ec00000000000002cc00000000000003940000000000000"
                 "2cc00000000000002ac000000000000042400000000000002ac000000000000028c0000000000080484000000000000028c0"
                 "00000000000026c0000000000000504000000000000026c000000000000024c0000000000040544000000000000024c00000"
                 "0000000022c0000000000000594000000000000022c000000000000020c00000000000405e4000000000000020c000000000"
                 "00001cc000000000000062400000000000001cc000000000000018c0000000000020654000000000000018c0000000000000"
                 "14c0000000000080684000000000000014c000000000000010c00000000000206c4000000000000010c000000000000008c0"
                 "000000000000704000000000000008c000000000000000c0000000000010724000000000000000c0000000000000f0bf0000"
                 "000000407440000000000000f0bf000000000000000000000000009076400000000000000000000000000000f03f00000000"
                 "00007940000000000000f03f00000000000000400000000000907b4000000000000000400000000000000840000000000040"
                 "7e40000000000000084000000000000010400000000000888040000000000000104000000000000014400000000000008240"
                 "00000000000014400000000000001840000000000088834000000000000018400000000000001c4000000000002085400000"
                 "000000001c4000000000000020400000000000c8864000000000000020400000000000002240000000000080884000000000"
                 "0000224000000000000024400000000000488a404a150a0c0a0a686973746f6772616d731a0360786020028e347d62");
}

Test(event_tensor, image_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    static const uint8_t png[] = {0x89, 'P', 'N', 'G', 0, '\r', '\n'};
    gd_event_append_image(&buffer, WALL_TIME, 7, (struct gd_tensor_tag){"i", "`x`"}, 640, 48, png, sizeof(png));
    assert_bytes(&buffer,
                 "410000000000000000a9c2ab0900002040fc54d94110072a340a320a0169421a080712041202080342033634304202343842"
                 "0789504e47000d0a4a110a080a06696d616765731a036078602003fd949f09");
}

Test(event_tensor, layout_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    static const uint8_t layout[] = {0x0a, 0x03, 0x0a, 0x01, 'c'};
    gd_event_append_layout(&buffer, WALL_TIME, layout, sizeof(layout));
    assert_bytes(&buffer,
                 "4a00000000000000af77dbb00900002040fc54d9412a3f0a3d0a18637573746f6d5f7363616c6172735f5f636f6e6669675f"
                 "5f420b0807120042050a030a01634a140a100a0e637573746f6d5f7363616c6172732002072844f8");
}

Test(event_tensor, hparams_byte_for_byte) {
    struct gd_record_buffer buffer = empty_buffer();
    static const uint8_t content[] = {0x1a, 0x00}; // an empty session_start_info
    gd_event_append_hparams(&buffer, WALL_TIME, "_hparams_/session_start_info", content, sizeof(content));
    assert_bytes(&buffer,
                 "440000000000000043592e9a0900002040fc54d9412a390a370a1c5f68706172616d735f2f73657373696f6e5f7374617274"
                 "5f696e666f42060801120212004a0f0a0d0a0768706172616d7312021a00df059887");
}

Test(event_tensor, no_description_is_no_field) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_text(&buffer, WALL_TIME, 7, (struct gd_tensor_tag){"a", ""}, "b", 1);
    Tensorboard__Event *event = tensorboard__event__unpack(NULL, gd_read_u64le(buffer.data), buffer.data + 12);
    cr_assert_not_null(event);
    cr_expect_null(event->summary->value[0]->metadata->summary_description);
    tensorboard__event__free_unpacked(event, NULL);
}

// ---- The bound ------------------------------------------------------------------------------------------------------

enum { TEXT_BYTES_MAX = 1 << 17 };

static char tag_text[256], description_text[1024], content[TEXT_BYTES_MAX];

static void expect_bounded(const struct gd_record_buffer *buffer, struct gd_tensor_tag tag, size_t content_bytes,
                           const char *what) {
    size_t bound = gd_event_tensor_bytes_max(tag, content_bytes);
    cr_expect(buffer->used <= bound && bound - buffer->used < 256, "%s of %zu, %zu and %zu bytes: %zu of %zu", what,
              strlen(tag.name), strlen(tag.description), content_bytes, buffer->used, bound);
}

static void check_bounds(struct gd_tensor_tag tag, size_t content_bytes) {
    struct gd_histogram_bin bins[GD_HISTOGRAM_BINS];
    struct gd_record_buffer buffer;
    const struct gd_tensor_tag none = {tag.name, ""}, layout = {"custom_scalars__config__", ""};

    buffer = empty_buffer();
    gd_event_append_text(&buffer, WALL_TIME, INT64_MIN, tag, content, content_bytes);
    expect_bounded(&buffer, tag, content_bytes, "a text");
    buffer = empty_buffer();
    gd_event_append_image(&buffer, WALL_TIME, INT64_MIN, tag, UINT32_MAX, UINT32_MAX, (const uint8_t *)content,
                          content_bytes);
    expect_bounded(&buffer, tag, content_bytes, "an image");
    buffer = empty_buffer();
    fill_bins(bins);
    gd_event_append_histogram(&buffer, WALL_TIME, INT64_MIN, tag, bins);
    expect_bounded(&buffer, tag, sizeof(bins), "a histogram");
    buffer = empty_buffer();
    gd_event_append_hparams(&buffer, WALL_TIME, tag.name, (const uint8_t *)content, content_bytes);
    expect_bounded(&buffer, none, content_bytes, "hyperparameters");
    buffer = empty_buffer();
    gd_event_append_layout(&buffer, WALL_TIME, (const uint8_t *)content, content_bytes);
    expect_bounded(&buffer, layout, content_bytes, "a layout");
}

// Lengths on both sides of every size of varint there is.
Test(event_tensor, every_record_is_within_its_bound_and_near_it) {
    static const size_t tag_bytes[] = {1, 127, 128, 255}, description_bytes[] = {0, 1, 127, 128, 1023},
                        content_bytes[] = {0, 1, 100, 127, 128, 1000, 16000, 16383, 16384, 70000, TEXT_BYTES_MAX};
    memset(content, 'c', sizeof(content));
    for (size_t t = 0; t < sizeof(tag_bytes) / sizeof(*tag_bytes); t++)
        for (size_t d = 0; d < sizeof(description_bytes) / sizeof(*description_bytes); d++)
            for (size_t c = 0; c < sizeof(content_bytes) / sizeof(*content_bytes); c++) {
                memset(tag_text, 't', tag_bytes[t]);
                tag_text[tag_bytes[t]] = '\0';
                memset(description_text, 'd', description_bytes[d]);
                description_text[description_bytes[d]] = '\0';
                check_bounds((struct gd_tensor_tag){tag_text, description_text}, content_bytes[c]);
            }
}

Test(event_tensor, a_record_that_does_not_fit_is_a_fault, .signal = SIGABRT) {
    struct gd_record_buffer buffer = empty_buffer();
    gd_event_append_text(&buffer, WALL_TIME, 7, (struct gd_tensor_tag){"a", ""}, "b", 1);
    buffer = (struct gd_record_buffer){.data = empty_buffer().data, .capacity = buffer.used - 1};
    gd_event_append_text(&buffer, WALL_TIME, 7, (struct gd_tensor_tag){"a", ""}, "b", 1);
}
