// An event file. The first byte's lowest bit asks for right checksums, which no mutation would hit: they are put into a
// copy of the rest, which is then read as a file.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "event.h"
#include "fuzz.h"
#include "mend_checksums.h"
#include "record.h"
#include "tensorboard.pb-c.h"

enum { ARENA_BYTES = 16 << 20 };

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
        read_bytes += GD_RECORD_OVERHEAD_BYTES + bytes;
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
