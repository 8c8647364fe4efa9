#include "record.h"

#include <errno.h>
#include <stdlib.h>

#include "bytes.h"
#include "crc32c.h"

enum {
    LENGTH_BYTES = 8,
    CHECKSUM_BYTES = 4,
    HEADER_BYTES = LENGTH_BYTES + CHECKSUM_BYTES,
    PIECE_BYTES = 64 << 20, // of a record: memory is taken for no more than this that has not been read yet
};

static int read_stream(void *context, uint8_t *ret_data, size_t bytes, size_t *ret_bytes) {
    FILE *stream = context;
    errno = 0;
    size_t n = fread(ret_data, 1, bytes, stream);
    if (n < bytes && ferror(stream))
        return errno != 0 ? -errno : -EIO;
    *ret_bytes = n;
    return 0;
}

void gd_record_reader_init(struct gd_record_reader *reader, FILE *stream) {
    gd_record_reader_init_source(reader, &(struct gd_record_source){read_stream, stream, GD_RECORD_DATA_BYTES_MAX});
}

void gd_record_reader_init_source(struct gd_record_reader *reader, const struct gd_record_source *source) {
    *reader = (struct gd_record_reader){.source = *source};
}

void gd_record_reader_deinit(struct gd_record_reader *reader) {
    free(reader->data);
    *reader = (struct gd_record_reader){0};
}

// Compares a checksum as stored with that of the data; returns GD_RECORD_READ or GD_RECORD_DAMAGED.
static int check_crc(struct gd_record_reader *reader, const uint8_t *data, size_t bytes, uint64_t offset,
                     const char *reason) {
    uint32_t stored = gd_read_u32le(data + bytes), computed = gd_crc32c_masked(data, bytes);
    if (stored == computed)
        return GD_RECORD_READ;
    reader->bad_offset = offset;
    reader->reason = reason;
    reader->value = stored;
    reader->limit = computed;
    reader->limit_name = "the bytes give";
    return GD_RECORD_DAMAGED;
}

static int check_length(struct gd_record_reader *reader, uint64_t data_bytes) {
    if (data_bytes <= reader->source.data_bytes_max)
        return GD_RECORD_READ;
    reader->bad_offset = reader->offset;
    reader->reason = reader->source.data_bytes_max == GD_RECORD_DATA_BYTES_MAX ? "the record is longer than 64 MiB"
                                                                               : "the record is too long";
    reader->value = data_bytes;
    reader->limit = reader->source.data_bytes_max;
    reader->limit_name = "at most";
    return GD_RECORD_DAMAGED;
}

static int reserve(struct gd_record_reader *reader, size_t bytes) {
    if (bytes <= reader->capacity)
        return 0;
    uint8_t *data = realloc(reader->data, bytes);
    if (!data)
        return -ENOMEM;
    reader->data = data;
    reader->capacity = bytes;
    return 0;
}

static int read_header(struct gd_record_reader *reader, size_t *ret_data_bytes) {
    uint8_t header[HEADER_BYTES];
    size_t n = 0;
    int r = reader->source.read(reader->source.context, header, sizeof(header), &n);
    if (r < 0)
        return r;
    if (n == 0)
        return GD_RECORD_END;
    if (n < sizeof(header))
        return GD_RECORD_TORN;

    uint64_t data_bytes = gd_read_u64le(header);
    r = check_crc(reader, header, LENGTH_BYTES, reader->offset, "the checksum of the record's length does not match");
    if (r == GD_RECORD_READ)
        r = check_length(reader, data_bytes);
    if (r == GD_RECORD_READ)
        *ret_data_bytes = (size_t)data_bytes;
    return r;
}

// Reads `bytes` bytes into reader->data; *ret_bytes below that means that the file ends there.
static int read_data(struct gd_record_reader *reader, size_t bytes, size_t *ret_bytes) {
    size_t have = 0, n = 0;
    do {
        size_t piece = bytes - have < PIECE_BYTES ? bytes - have : PIECE_BYTES;
        int r = reserve(reader, have + piece);
        if (r == 0)
            r = reader->source.read(reader->source.context, reader->data + have, piece, &n);
        if (r < 0)
            return r;
        have += n;
        if (n < piece)
            break;
    } while (have < bytes);
    *ret_bytes = have;
    return 0;
}

int gd_record_read(struct gd_record_reader *reader, const uint8_t **ret_data, size_t *ret_bytes) {
    size_t data_bytes;
    int r = read_header(reader, &data_bytes);
    if (r != GD_RECORD_READ)
        return r;

    size_t n = 0;
    r = read_data(reader, data_bytes + CHECKSUM_BYTES, &n);
    if (r < 0)
        return r;
    if (n < data_bytes + CHECKSUM_BYTES)
        return GD_RECORD_TORN;
    r = check_crc(reader, reader->data, data_bytes, reader->offset + HEADER_BYTES,
                  "the checksum of the record's data does not match");
    if (r != GD_RECORD_READ) {
        reader->damaged_bytes = HEADER_BYTES + data_bytes + CHECKSUM_BYTES;
        return r;
    }

    reader->offset += HEADER_BYTES + data_bytes + CHECKSUM_BYTES;
    *ret_data = reader->data;
    *ret_bytes = data_bytes;
    return GD_RECORD_READ;
}

bool gd_record_skip_damaged(struct gd_record_reader *reader) {
    if (reader->damaged_bytes == 0)
        return false;
    reader->offset += reader->damaged_bytes;
    reader->damaged_bytes = 0;
    return true;
}
