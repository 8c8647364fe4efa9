// A Snapshot's payload. The input is  u8 deflated (its lowest bit), u8 the pieces' size, u16le the elements' bytes,
// payload. It is taken whole and in pieces, which must come to the same.
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "payload.h"
#include "text.h"

enum { HEAD_BYTES = 4 };

// Takes the payload in pieces. Returns what the first call says that fails, else 0.
static int take(const uint8_t *data, size_t bytes, size_t piece, bool deflated, uint8_t *destination,
                size_t destination_bytes, struct gd_error *ret_error) {
    struct gd_payload payload;
    int result = gd_payload_init(&payload, destination, destination_bytes, bytes, deflated, ret_error);
    for (size_t at = 0; result == 0 && at < bytes; at += piece) {
        assert(payload.left_bytes == bytes - at && payload.filled_bytes <= destination_bytes);
        result = gd_payload_take(&payload, data + at, bytes - at < piece ? bytes - at : piece, ret_error);
    }
    assert(result < 0 || (payload.left_bytes == 0 && payload.filled_bytes == destination_bytes));
    gd_payload_deinit(&payload);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < HEAD_BYTES)
        return 0;
    bool deflated = data[0] & 1;
    size_t piece = data[1] > 0 ? data[1] : 1;
    size_t destination_bytes = (size_t)data[2] | (size_t)data[3] << 8;
    if (destination_bytes == 0) // a run has elements
        return 0;

    struct gd_error errors[2] = {{.field = ""}, {.field = ""}};
    uint8_t *destinations[2] = {malloc(destination_bytes), malloc(destination_bytes)};
    if (destinations[0] && destinations[1]) {
        size_t payload_bytes = bytes - HEAD_BYTES;
        int whole = take(data + HEAD_BYTES, payload_bytes, payload_bytes + 1, deflated, destinations[0],
                         destination_bytes, &errors[0]);
        int pieces =
            take(data + HEAD_BYTES, payload_bytes, piece, deflated, destinations[1], destination_bytes, &errors[1]);
        assert(whole == pieces && (whole == 0 || whole == -EBADMSG));
        assert(strcmp(errors[0].field, errors[1].field) == 0);
        if (whole < 0)
            assert(strcmp(errors[0].text, errors[1].text) == 0 &&
                   gd_text_is_clean(errors[0].text, strlen(errors[0].text)));
        else
            assert(memcmp(destinations[0], destinations[1], destination_bytes) == 0);
    }
    free(destinations[0]);
    free(destinations[1]);
    return 0;
}
