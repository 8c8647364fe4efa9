#include "message.h"

#include <stdlib.h>
#include <string.h>

enum { SPARE_BYTES_MAX = 4 << 10 }; // enough for a snapshot with dozens of scalars; larger blocks are not kept

struct gd_submission *gd_submission_new(struct gd_submission_pool *pool, size_t bytes) {
    struct gd_submission *submission = pool ? pool->spare : NULL;
    size_t capacity_bytes = bytes;

    if (submission && submission->capacity_bytes >= bytes) {
        capacity_bytes = submission->capacity_bytes;
        pool->spare = NULL;
        memset(submission, 0, bytes);
    } else {
        submission = calloc(1, bytes);
        if (!submission)
            return NULL;
    }
    submission->bytes = bytes;
    submission->capacity_bytes = capacity_bytes;
    return submission;
}

void gd_submission_free(struct gd_submission_pool *pool, struct gd_submission *submission) {
    if (!pool || !submission || submission->capacity_bytes > SPARE_BYTES_MAX) {
        free(submission);
        return;
    }
    struct gd_submission *spare = pool->spare;
    if (spare && spare->capacity_bytes >= submission->capacity_bytes) {
        free(submission);
        return;
    }
    free(spare);
    pool->spare = submission;
}

void gd_submission_pool_deinit(struct gd_submission_pool *pool) {
    free(pool->spare);
    pool->spare = NULL;
}
