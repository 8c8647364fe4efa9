#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

#include "internal.h"

enum { FASTEST = 1 }; // level: gradients are near noise, the others give no more

int client_inline_init(struct gradientd_run *run, const struct gradientd_options *options) {
    struct client_inline *in_line = &run->in_line;
    bool starts = options->start_second_moment || options->start_second_moment_max; // whose elements are floats
    size_t bytes = run->elements * (starts ? sizeof(float) : run->vector.element_bytes);

    in_line->elements = calloc(bytes, 1);
    run->slots = (struct client_slots){
        .base = in_line->elements,
        .count = 1,
        .used_sequence = calloc(1, sizeof(uint64_t)),
    };
    if (!in_line->elements || !run->slots.used_sequence)
        return -ENOMEM;
    if (options->transport != GRADIENTD_INLINE_DEFLATED)
        return 0;
    in_line->deflated = malloc(bytes);
    in_line->deflater = calloc(1, sizeof(*in_line->deflater));
    if (!in_line->deflated || !in_line->deflater || deflateInit(in_line->deflater, FASTEST) != Z_OK)
        return -ENOMEM;
    return 0;
}

void client_inline_deinit(struct client_inline *in_line) {
    if (in_line->deflater)
        deflateEnd(in_line->deflater);
    free(in_line->deflater);
    free(in_line->deflated);
    free(in_line->elements);
}

// Deflates the first `bytes` bytes of the elements. Returns what they become, 0 when that is no less.
static size_t deflate_elements(struct client_inline *in_line, size_t bytes) {
    z_stream *deflater = in_line->deflater;
    if (!deflater || deflateReset(deflater) != Z_OK)
        return 0;
    deflater->next_in = in_line->elements;
    deflater->avail_in = (uInt)bytes; // at most GRADIENTD_PAYLOAD_BYTES_MAX
    deflater->next_out = in_line->deflated;
    deflater->avail_out = (uInt)bytes;
    return deflate(deflater, Z_FINISH) == Z_STREAM_END ? bytes - deflater->avail_out : 0;
}

const uint8_t *client_inline_payload(struct gradientd_run *run, size_t bytes, Gradientd__StreamElements *elements,
                                     size_t *ret_payload_bytes) {
    size_t deflated_bytes = deflate_elements(&run->in_line, bytes);
    elements->has_deflated = elements->deflated = deflated_bytes > 0;
    elements->has_inline_bytes = true;
    elements->inline_bytes = *ret_payload_bytes = deflated_bytes > 0 ? deflated_bytes : bytes;
    return deflated_bytes > 0 ? run->in_line.deflated : run->in_line.elements;
}
