// An event file. The first byte's lowest bit asks for right checksums, which no mutation would hit: they are put into a
// copy of the rest, which is then read as a file.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "bytes.h"
#include "crc32c.h"
#include "fuzz.h"
#include "record.h"
#include "tensorboard.pb-c.h"

enum {
    LENGTH_BYTES = 8,
    CHECKSUM_BYTES = 4,
    ARENA_BYTES = 16 << 20,
};

static void mend_checksums(uint8_t *data, size_t bytes) {
    size_t at = 0;
    while (bytes - at >= LENGTH_BYTES + CHECKSUM_BYTES) {
        uint64_t record_bytes = gd_read_u64le(data + at);
        gd_write_u32le(data + at + LENGTH_BYTES, gd_crc32c_masked(data + at, LENGTH_BYTES));
        at += LENGTH_BYTES + CHECKSUM_BYTES;
        if (bytes - at < CHECKSUM_BYTES || record_bytes > bytes - at - CHECKSUM_BYTES)
            return;
        gd_write_u32le(data + at + record_bytes, gd_crc32c_masked(data + at, record_bytes));
        at += record_bytes + CHECKSUM_BYTES;
    }
}

static void read_records(FILE *stream, size_t file_bytes, struct gd_arena *arena) {
    struct gd_record_reader reader;
    const uint8_t *data;
    size_t bytes;
    int result;
    uint64_t read_bytes = 0;

    gd_record_reader_init(&reader, stream);
    while ((result = gd_record_read(&reader, &data, &bytes)) == GD_RECORD_READ ||
           (result == GD_RECORD_DAMAGED && gd_record_skip_damaged(&reader))) {
        if (result == GD_RECORD_DAMAGED) {
            assert(reader.offset > read_bytes && reader.offset <= file_bytes);
            read_bytes = reader.offset;
            continue;
        }
        read_bytes += LENGTH_BYTES + 2 * CHECKSUM_BYTES + bytes;
        assert(data && bytes <= GD_RECORD_DATA_BYTES_MAX);
        assert(reader.offset == read_bytes && read_bytes <= file_bytes);
        gd_arena_reset(arena);
        (void)tensorboard__event__unpack(&arena->allocator, bytes, data);
    }
    assert(result == GD_RECORD_END || result == GD_RECORD_TORN || result == GD_RECORD_DAMAGED);
    assert(result != GD_RECORD_END || read_bytes == file_bytes);
    assert(result != GD_RECORD_DAMAGED || (reader.reason && reader.bad_offset >= reader.offset));
    gd_record_reader_deinit(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct gd_arena arena;
    if (!arena.base && gd_arena_init(&arena, ARENA_BYTES) < 0)
        return 0;
    if (bytes < 2)
        return 0;

    size_t file_bytes = bytes - 1;
    uint8_t *file = malloc(file_bytes);
    FILE *stream = file ? fmemopen(file, file_bytes, "rb") : NULL;
    if (stream) {
        memcpy(file, data + 1, file_bytes);
        if (data[0] & 1)
            mend_checksums(file, file_bytes);
        read_records(stream, file_bytes, &arena);
        fclose(stream);
    }
    free(file);
    return 0;
}
