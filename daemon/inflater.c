#include "inflater.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void take(uv_work_t *work) {
    struct gd_inflater *inflater = work->data;
    inflater->result = gd_payload_take(inflater->payload, inflater->piece, inflater->piece_bytes, &inflater->error);
}

static void on_taken(uv_work_t *work, int status) {
    struct gd_inflater *inflater = work->data;
    (void)status;
    free(inflater->piece);
    inflater->piece = NULL;
    inflater->done(inflater->context, inflater->result, &inflater->error);
}

int gd_inflater_start(struct gd_inflater *inflater, uv_loop_t *loop, struct gd_payload *payload, const uint8_t *data,
                      size_t bytes, void (*done)(void *context, int result, struct gd_error *error), void *context) {
    assert(!gd_inflater_is_busy(inflater) && bytes > 0);
    *inflater = (struct gd_inflater){
        .payload = payload, .piece = malloc(bytes), .piece_bytes = bytes, .done = done, .context = context};
    if (!inflater->piece)
        return -ENOMEM;
    memcpy(inflater->piece, data, bytes);
    inflater->work.data = inflater;
    uv_queue_work(loop, &inflater->work, take, on_taken);
    return 0;
}
