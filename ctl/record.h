// Reads the records of an event file, or of another TFRecord file, one after another and checks both checksums of each.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    // No writer of TensorBoard files comes near 64 MiB of data in one record; a longer one is damage, and the bound
    // keeps a hostile file from taking all memory.
    GD_RECORD_DATA_BYTES_MAX = 64 << 20,
};

enum gd_record_result {
    GD_RECORD_READ = 0,
    GD_RECORD_END,     // the file ends where a record ends
    GD_RECORD_TORN,    // the file ends inside a record: normal while it is being written
    GD_RECORD_DAMAGED, // a checksum does not match, or the length is beyond all reason
};

// Where records come from.
struct gd_record_source {
    // Fills `ret_data`; *ret_bytes below `bytes` means that there is no more. Returns 0 or a negative errno.
    int (*read)(void *context, uint8_t *ret_data, size_t bytes, size_t *ret_bytes);
    void *context;
    uint64_t data_bytes_max; // of one record, at most SIZE_MAX / 2
};

struct gd_record_reader {
    struct gd_record_source source;
    uint64_t offset;     // bytes of whole records read so far: where the next (or the torn) record starts
    uint64_t bad_offset; // after GD_RECORD_DAMAGED: where the bytes the failed check covers start ...
    const char *reason;  // ... and what is wrong with them; static
    uint64_t value;      // what was found there ...
    uint64_t limit;      // ... and what that should be, or may be at most
    const char *limit_name;
    uint64_t damaged_bytes; // of the whole record when its length is right, else 0
    uint8_t *data;
    size_t capacity;
};

// Reads a file (borrowed) from its current position; records have at most GD_RECORD_DATA_BYTES_MAX bytes.
void gd_record_reader_init(struct gd_record_reader *reader, FILE *stream);

void gd_record_reader_init_source(struct gd_record_reader *reader, const struct gd_record_source *source);

// Frees what the reader allocated; the stream stays open.
void gd_record_reader_deinit(struct gd_record_reader *reader);

// Reads one record. On GD_RECORD_READ *ret_data is its data (never NULL), owned by the reader and valid until the next
// call. Any other gd_record_result, and a negative errno (the read failed, or -ENOMEM), ends the reading: only
// gd_record_reader_deinit() may follow, or gd_record_skip_damaged() after GD_RECORD_DAMAGED. *ret_data and *ret_bytes
// are set on GD_RECORD_READ alone.
__attribute__((warn_unused_result)) int gd_record_read(struct gd_record_reader *reader, const uint8_t **ret_data,
                                                       size_t *ret_bytes);

// Goes on after GD_RECORD_DAMAGED with the record after the damaged one. Returns false, and ends the reading, when
// nobody knows where that starts.
__attribute__((warn_unused_result)) bool gd_record_skip_damaged(struct gd_record_reader *reader);
