// What one record of a recording holds, and its form as a tf.train.Example. docs/recording.md has the features.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "element_type.h"

enum {
    GD_RECORDING_FORMAT = 1,
    // Of one record: protobuf's own limit of a message.
    GD_RECORDED_BYTES_MAX = INT32_MAX,
};

enum gd_recorded_kind {
    GD_RECORDED_RECORDING, // the first
    GD_RECORDED_OPEN_RUN,
    GD_RECORDED_START_VECTOR,
    GD_RECORDED_SNAPSHOT,
    GD_RECORDED_SCALARS,
    GD_RECORDED_CLOSE_RUN,
    GD_RECORDED_END, // the last
    GD_RECORDED_KINDS,
};

// How a run ended, as its daemon saw it.
enum gd_recorded_outcome {
    GD_RECORDED_CLOSED,       // by CloseRun
    GD_RECORDED_TRAINER_GONE, // without it: the event file ends all the same
    GD_RECORDED_REFUSED,      // with an Error: likewise
    GD_RECORDED_LEFT,         // the daemon was gone: the event file has no end
    GD_RECORDED_OUTCOMES,
};

enum gd_recorded_stream {
    GD_RECORDED_GRADIENT,
    GD_RECORDED_PROBE_GRADIENT,
    GD_RECORDED_PARAMETERS,
    GD_RECORDED_OUTPUTS,
    GD_RECORDED_START_SECOND_MOMENT,
    GD_RECORDED_START_SECOND_MOMENT_MAX,
    GD_RECORDED_START_PARAMETERS,
    GD_RECORDED_START_OUTPUTS,
    GD_RECORDED_STREAMS,
};

struct gd_recorded_bytes {
    const uint8_t *data; // NULL: not there
    size_t bytes;
};

struct gd_recorded_elements {
    struct gd_recorded_bytes bytes;
    enum gd_element_type type;
};

struct gd_recorded {
    enum gd_recorded_kind kind;
    struct gd_recorded_bytes message;                          // as on the wire
    struct gd_recorded_bytes payload;                          // likewise
    struct gd_recorded_elements elements[GD_RECORDED_STREAMS]; // those that lay in shared memory
    struct gd_recorded_bytes text; // RECORDING: which gradientd wrote it; END: the Error of a run that was refused
    bool has_step;
    int64_t step;
    int64_t format;                   // RECORDING
    int64_t inline_elements;          // OPEN_RUN: 1 where the elements come in payloads
    enum gd_recorded_outcome outcome; // END
};

// As the Example has it, such as "Snapshot" or "gradient".
const char *gd_recorded_kind_name(enum gd_recorded_kind kind);
const char *gd_recorded_stream_name(enum gd_recorded_stream stream);
const char *gd_recorded_outcome_name(enum gd_recorded_outcome outcome);

// The bytes of the Example, at most GD_RECORDED_BYTES_MAX; 0 when it has more.
size_t gd_recorded_packed_bytes(const struct gd_recorded *recorded);

// Writes so many bytes.
void gd_recorded_pack(const struct gd_recorded *recorded, uint8_t *ret_data);

// Reads an Example, whose parts are then in `arena`, which must be empty. Returns 0 or -EBADMSG with *ret_reason set,
// which is static. Features that are not known are left alone.
__attribute__((warn_unused_result)) int gd_recorded_unpack(const uint8_t *data, size_t bytes, struct gd_arena *arena,
                                                           struct gd_recorded *ret_recorded, const char **ret_reason);
