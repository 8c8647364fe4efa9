// Going on with a run that has hardly begun: nothing but its first records is committed.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run_rig.h"
#include "support.h"

// Memory with commit 0, of a daemon that died.
static uint8_t *new_image(struct gd_open_run *open_run) {
    start(open_run);
    uint8_t *image = malloc(run->layout.total_bytes);
    cr_assert_not_null(image);
    cr_assert_eq(pread(memory_fd, image, run->layout.total_bytes, 0), (ssize_t)run->layout.total_bytes);
    free_run();
    return image;
}

static void new_run_on(const uint8_t *image, struct gd_open_run *open_run) {
    new_run(open_run);
    cr_assert_eq(pwrite(memory_fd, image, run->layout.total_bytes, 0), (ssize_t)run->layout.total_bytes);
}

static struct gd_open_run *open_run_with_shadow(void) {
    struct gd_open_run *open_run = small_open_run();
    open_run->starts = true;
    open_run->n_shadows = 1;
    open_run->shadows[0] = gd_adam_shadow(&open_run->adam, GD_RULE_ADAFOM);
    return open_run;
}

// A StartVector sets how far the run's own rule is; a shadow that was ahead of it would meet a step of its past.
Test(resume_new, a_shadow_has_seen_nothing_before_the_start_vectors) {
    struct gd_open_run *open_run = open_run_with_shadow();
    struct gd_layout layout;
    gd_layout_init(&layout, open_run);
    uint8_t *image = new_image(open_run);
    struct gd_open_run *again = open_run_with_shadow();
    struct gd_run_state *state = (void *)(image + layout.state_offset[0]);
    struct gd_shadow_state *shadow = gd_run_state_shadows(state, again);
    shadow->adam.first_optimizer_step = 1;
    state->adam.optimizer_step = shadow->adam.optimizer_step = 100;
    sign_image(image, &layout, 0);

    new_run_on(image, again);
    cr_expect_eq(attach(), -EBADMSG);
    cr_expect(strstr(error.text, "a shadow rule"), "%s", error.text);
    free_run();
    free(image);
}
