#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "event.h"
#include "record.h"

enum {
    N_RECORDS = 4,
    FILE_BYTES_MAX = 1024,
};

// A small event file and where its records start; starts[N_RECORDS] is its end.
struct sample {
    uint8_t data[FILE_BYTES_MAX];
    size_t bytes;
    size_t starts[N_RECORDS + 1];
};

// How reading a file ended.
struct outcome {
    size_t records;
    int result;
    uint64_t offset;
    uint64_t bad_offset;
    const char *reason;
};

static struct sample sample_new(void) {
    struct sample sample = {0};
    struct gd_record_buffer buffer = {.data = sample.data, .capacity = sizeof(sample.data)};
    gd_event_append_start(&buffer, 1700000000.5, 1);
    sample.starts[1] = GD_RECORD_OVERHEAD_BYTES + gd_read_u64le(sample.data);
    sample.starts[2] = buffer.used;
    gd_event_append_scalars(&buffer, 1700000001.0, 1,
                            (struct gd_scalar[]){gd_scalar_of("train/loss", 0.25f, "the loss")}, 1);
    sample.starts[3] = buffer.used;
    gd_event_append_stop(&buffer, 1700000002.0, 1);
    sample.starts[4] = buffer.used;
    sample.bytes = buffer.used;
    return sample;
}

static struct outcome read_stream(FILE *stream) {
    struct gd_record_reader reader;
    gd_record_reader_init(&reader, stream);
    struct outcome outcome = {0};
    const uint8_t *data;
    size_t bytes;
    while ((outcome.result = gd_record_read(&reader, &data, &bytes)) == GD_RECORD_READ)
        outcome.records++;
    outcome.offset = reader.offset;
    outcome.bad_offset = reader.bad_offset;
    outcome.reason = reader.reason;
    gd_record_reader_deinit(&reader);
    return outcome;
}

static struct outcome read_all(uint8_t *data, size_t bytes) {
    FILE *stream = fmemopen(data, bytes, "r");
    cr_assert_not_null(stream);
    struct outcome outcome = read_stream(stream);
    fclose(stream);
    return outcome;
}

static size_t record_at(const struct sample *sample, size_t offset) {
    size_t record = 0;
    while (sample->starts[record + 1] <= offset)
        record++;
    return record;
}

Test(record, reads_what_was_written) {
    struct sample sample = sample_new();
    FILE *stream = fmemopen(sample.data, sample.bytes, "r");
    struct gd_record_reader reader;
    gd_record_reader_init(&reader, stream);
    const uint8_t *data;
    size_t bytes;

    for (size_t i = 0; i < N_RECORDS; i++) {
        cr_assert_eq(reader.offset, sample.starts[i]);
        cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_READ);
        cr_assert_eq(bytes, sample.starts[i + 1] - sample.starts[i] - GD_RECORD_OVERHEAD_BYTES);
        cr_assert_eq(memcmp(data, sample.data + sample.starts[i] + 12, bytes), 0);
    }
    cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_END);
    cr_assert_eq(reader.offset, sample.bytes);
    gd_record_reader_deinit(&reader);
    fclose(stream);
}

Test(record, reads_the_empty_record) {
    uint8_t record[] = {0, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x03, 0x98, 0x07, 0xd8, 0xea, 0x82, 0xa2};
    struct outcome outcome = read_all(record, sizeof(record));
    cr_assert_eq(outcome.result, GD_RECORD_END);
    cr_assert_eq(outcome.records, 1);
}

Test(record, finds_every_flipped_bit) {
    struct sample sample = sample_new();
    for (size_t offset = 0; offset < sample.bytes; offset++) {
        size_t record = record_at(&sample, offset);
        size_t in_record = offset - sample.starts[record];
        for (int bit = 0; bit < 8; bit++) {
            sample.data[offset] ^= (uint8_t)(1 << bit);
            struct outcome outcome = read_all(sample.data, sample.bytes);
            sample.data[offset] ^= (uint8_t)(1 << bit);

            cr_assert_eq(outcome.result, GD_RECORD_DAMAGED, "byte %zu, bit %d", offset, bit);
            cr_assert_eq(outcome.records, record, "byte %zu, bit %d", offset, bit);
            cr_assert_eq(outcome.bad_offset, sample.starts[record] + (in_record < 12 ? 0 : 12));
            cr_assert_not_null(strstr(outcome.reason, in_record < 12 ? "length" : "data"));
        }
    }
}

static FILE *read_sample(struct sample *sample, struct gd_record_reader *reader) {
    FILE *stream = fmemopen(sample->data, sample->bytes, "r");
    gd_record_reader_init(reader, stream);
    return stream;
}

Test(record, goes_on_behind_damaged_data) {
    struct sample sample = sample_new();
    sample.data[sample.starts[1] + 12] ^= 1;
    struct gd_record_reader reader;
    FILE *stream = read_sample(&sample, &reader);
    const uint8_t *data;
    size_t bytes;

    cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_READ);
    cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_DAMAGED);
    cr_assert_neq(reader.value, reader.limit);
    cr_assert(gd_record_skip_damaged(&reader));
    for (size_t i = 2; i < N_RECORDS; i++) {
        cr_assert_eq(reader.offset, sample.starts[i]);
        cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_READ);
    }
    cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_END);
    gd_record_reader_deinit(&reader);
    fclose(stream);
}

Test(record, nobody_knows_what_follows_a_damaged_length) {
    struct sample sample = sample_new();
    sample.data[0] ^= 1;
    struct gd_record_reader reader;
    FILE *stream = read_sample(&sample, &reader);
    const uint8_t *data;
    size_t bytes;
    cr_assert_eq(gd_record_read(&reader, &data, &bytes), GD_RECORD_DAMAGED);
    cr_assert_not(gd_record_skip_damaged(&reader));
    gd_record_reader_deinit(&reader);
    fclose(stream);
}

Test(record, tolerates_every_torn_tail) {
    struct sample sample = sample_new();
    for (size_t bytes = 1; bytes <= sample.bytes; bytes++) {
        size_t record = bytes < sample.bytes ? record_at(&sample, bytes) : N_RECORDS;
        struct outcome outcome = read_all(sample.data, bytes);
        cr_assert_eq(outcome.result, bytes == sample.starts[record] ? GD_RECORD_END : GD_RECORD_TORN, "%zu", bytes);
        cr_assert_eq(outcome.records, record);
        cr_assert_eq(outcome.offset, sample.starts[record]);
    }
}

Test(record, an_empty_file_has_no_records) {
    FILE *stream = tmpfile();
    cr_assert_not_null(stream);
    struct outcome outcome = read_stream(stream);
    fclose(stream);
    cr_assert_eq(outcome.result, GD_RECORD_END);
    cr_assert_eq(outcome.records, 0);
}

// What a torn record with others behind it, or preallocated space, looks like.
Test(record, zeros_are_damage) {
    struct sample sample = sample_new();
    memset(sample.data + sample.bytes, 0, 64);
    struct outcome outcome = read_all(sample.data, sample.bytes + 64);
    cr_assert_eq(outcome.result, GD_RECORD_DAMAGED);
    cr_assert_eq(outcome.records, N_RECORDS);
    cr_assert_eq(outcome.bad_offset, sample.bytes);
}

Test(record, a_missing_middle_is_damage) {
    struct sample sample = sample_new();
    size_t hole = sample.starts[2] + 20;
    memmove(sample.data + hole, sample.data + hole + 5, sample.bytes - hole - 5);
    struct outcome outcome = read_all(sample.data, sample.bytes - 5);
    cr_assert_eq(outcome.result, GD_RECORD_DAMAGED);
    cr_assert_eq(outcome.records, 2);
    cr_assert_eq(outcome.bad_offset, sample.starts[2] + 12);
}

Test(record, length_is_bounded) {
    const struct {
        uint64_t length;
        int result;
    } cases[] = {
        {GD_RECORD_DATA_BYTES_MAX, GD_RECORD_TORN},
        {GD_RECORD_DATA_BYTES_MAX + UINT64_C(1), GD_RECORD_DAMAGED},
        {UINT64_MAX, GD_RECORD_DAMAGED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t header[12 + 1] = {0};
        gd_write_u64le(header, cases[i].length);
        gd_write_u32le(header + 8, gd_crc32c_masked(header, 8));
        struct outcome outcome = read_all(header, sizeof(header));
        cr_assert_eq(outcome.result, cases[i].result, "case %zu", i);
        if (cases[i].result == GD_RECORD_DAMAGED)
            cr_assert_not_null(strstr(outcome.reason, "64 MiB"));
    }
}

Test(record, a_failing_read_is_an_error) {
    FILE *stream = fopen("/", "r");
    cr_assert_not_null(stream);
    struct outcome outcome = read_stream(stream);
    fclose(stream);
    cr_assert_eq(outcome.result, -EISDIR);
}
