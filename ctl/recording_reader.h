// Reads a recording, of which nothing is trusted.
#pragma once

#include <stdint.h>
#include <zlib.h>

#include "record.h"
#include "recorded.h"

enum gd_recording_result {
    GD_RECORDING_READ = 0,
    GD_RECORDING_OVER,    // the file ends where it may
    GD_RECORDING_TORN,    // it was cut off
    GD_RECORDING_DAMAGED, // reader->text says what is wrong
};

struct gd_recording_reader {
    gzFile file; // owned
    struct gd_record_reader records;
    struct gd_arena arena;
    uint64_t number; // of the record that was read last, or could not be: they count from 1
    char text[256];  // of GD_RECORDING_DAMAGED
};

// Takes over `fd`, also when it fails. `bytes_max` bounds one record, GD_RECORDED_BYTES_MAX but in tests. Returns 0 or
// -ENOMEM.
__attribute__((warn_unused_result)) int gd_recording_reader_init_consume(struct gd_recording_reader *reader, int fd,
                                                                         uint64_t bytes_max);
void gd_recording_reader_deinit(struct gd_recording_reader *reader);

// Reads a record, which is valid until the next call. Returns an enum gd_recording_result, or a negative errno: the
// file could not be read, or -ENOMEM. After anything but GD_RECORDING_READ only the deinit may follow.
__attribute__((warn_unused_result)) int gd_recording_read(struct gd_recording_reader *reader,
                                                          struct gd_recorded *ret_recorded);
