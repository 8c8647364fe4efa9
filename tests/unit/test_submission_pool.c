// Blocks of submissions that serve again.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"

enum { SMALL = sizeof(struct gd_submission) + 40, LARGER = SMALL + 200, HUGE_BYTES = 1 << 20 };

static struct gd_submission *dirty(struct gd_submission_pool *pool, size_t bytes) {
    struct gd_submission *submission = gd_submission_new(pool, bytes);
    cr_assert_not_null(submission);
    size_t capacity_bytes = submission->capacity_bytes;
    memset(submission, 0x5a, bytes);
    submission->capacity_bytes = capacity_bytes; // which is the pool's
    return submission;
}

static bool is_clean(const struct gd_submission *submission, size_t bytes) {
    const uint8_t *rest = (const uint8_t *)(submission + 1);
    bool clean = submission->bytes == bytes && submission->capacity_bytes >= bytes && !submission->next &&
                 !submission->scalars && !submission->rates && submission->sequence == 0;
    for (size_t i = sizeof(*submission); i < bytes; i++)
        clean = clean && *rest++ == 0;
    return clean;
}

Test(submission_pool, a_block_serves_again_and_is_clean) {
    struct gd_submission_pool pool = {NULL};
    struct gd_submission *first = dirty(&pool, LARGER);
    gd_submission_free(&pool, first);
    struct gd_submission *second = gd_submission_new(&pool, SMALL);
    cr_expect_eq(second, first);
    cr_expect(is_clean(second, SMALL));
    gd_submission_free(&pool, second);
    struct gd_submission *third = gd_submission_new(&pool, LARGER); // it has kept its size
    cr_expect_eq(third, first);
    cr_expect(is_clean(third, LARGER));
    gd_submission_free(&pool, third);
    gd_submission_pool_deinit(&pool);
}

Test(submission_pool, a_block_that_is_too_small_stays) {
    struct gd_submission_pool pool = {NULL};
    gd_submission_free(&pool, dirty(&pool, SMALL));
    struct gd_submission *larger = gd_submission_new(&pool, LARGER);
    cr_expect(is_clean(larger, LARGER));
    gd_submission_free(&pool, larger); // the larger one is kept
    cr_expect_eq(pool.spare, larger);
    gd_submission_pool_deinit(&pool);
    cr_expect_null(pool.spare);
}

Test(submission_pool, huge_blocks_are_not_kept) {
    struct gd_submission_pool pool = {NULL};
    gd_submission_free(&pool, dirty(&pool, HUGE_BYTES));
    cr_expect_null(pool.spare);
}

Test(submission_pool, none_is_a_pool_too) {
    struct gd_submission *submission = gd_submission_new(NULL, SMALL);
    cr_expect(is_clean(submission, SMALL));
    gd_submission_free(NULL, submission);
    gd_submission_free(NULL, NULL);
}
