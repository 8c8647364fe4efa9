#include "recording_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum {
    GZIP_BUFFER_BYTES = 128 << 10,
    UNPACKED_BYTES_MIN = 1 << 20, // of a record's structs, beside what it has of bytes
};

// Of the gzip stream; Z_BUF_ERROR is its sudden end.
static int gzip_state(const struct gd_recording_reader *reader) {
    int code;
    gzerror(reader->file, &code);
    return code;
}

static int read_gzip(void *context, uint8_t *ret_data, size_t bytes, size_t *ret_bytes) {
    struct gd_recording_reader *reader = context;
    errno = 0;
    int n = gzread(reader->file, ret_data, (unsigned)bytes); // a piece is below 2^31
    if (n >= 0) {
        *ret_bytes = (size_t)n;
        return 0;
    }
    int code;
    const char *text = gzerror(reader->file, &code);
    if (code == Z_MEM_ERROR)
        return -ENOMEM;
    if (code == Z_ERRNO)
        return errno != 0 ? -errno : -EIO;
    snprintf(reader->text, sizeof(reader->text), "the gzip stream is damaged: %s", text);
    return -EBADMSG;
}

int gd_recording_reader_init_consume(struct gd_recording_reader *reader, int fd, uint64_t bytes_max) {
    *reader = (struct gd_recording_reader){.file = gzdopen(fd, "rb")};
    if (!reader->file) {
        close(fd);
        return -ENOMEM;
    }
    gzbuffer(reader->file, GZIP_BUFFER_BYTES);
    gd_record_reader_init_source(&reader->records, &(struct gd_record_source){read_gzip, reader, bytes_max});
    return 0;
}

void gd_recording_reader_deinit(struct gd_recording_reader *reader) {
    gzclose(reader->file);
    gd_record_reader_deinit(&reader->records);
    gd_arena_deinit(&reader->arena);
    *reader = (struct gd_recording_reader){0};
}

// Empties the arena, and makes room in it for a record of so many bytes.
static int make_room(struct gd_recording_reader *reader, size_t bytes) {
    if (reader->arena.capacity_bytes >= bytes + UNPACKED_BYTES_MIN) {
        gd_arena_reset(&reader->arena);
        return 0;
    }
    gd_arena_deinit(&reader->arena);
    return gd_arena_init(&reader->arena, bytes + UNPACKED_BYTES_MIN);
}

static int unpack(struct gd_recording_reader *reader, const uint8_t *data, size_t bytes,
                  struct gd_recorded *ret_recorded) {
    const char *reason;
    int result = make_room(reader, bytes);
    if (result < 0)
        return result;
    result = gd_recorded_unpack(data, bytes, &reader->arena, ret_recorded, &reason);
    if (result == 0)
        return GD_RECORDING_READ;
    snprintf(reader->text, sizeof(reader->text), "%s", reason);
    return GD_RECORDING_DAMAGED;
}

int gd_recording_read(struct gd_recording_reader *reader, struct gd_recorded *ret_recorded) {
    const struct gd_record_reader *records = &reader->records;
    const uint8_t *data;
    size_t bytes;

    reader->number++;
    int result = gd_record_read(&reader->records, &data, &bytes);
    switch (result) {
    case GD_RECORD_READ:
        return unpack(reader, data, bytes, ret_recorded);
    case GD_RECORD_END:
        return gzip_state(reader) == Z_BUF_ERROR ? GD_RECORDING_TORN : GD_RECORDING_OVER;
    case GD_RECORD_TORN:
        return GD_RECORDING_TORN;
    case GD_RECORD_DAMAGED:
        snprintf(reader->text, sizeof(reader->text), "%s: it is %" PRIu64 ", %s %" PRIu64, records->reason,
                 records->value, records->limit_name, records->limit);
        return GD_RECORDING_DAMAGED;
    case -EBADMSG:
        return GD_RECORDING_DAMAGED;
    default:
        return result;
    }
}
