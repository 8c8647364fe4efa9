// Going on with a run that has hardly begun: nothing but its first records is committed.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run_rig.h"
#include "support.h"

static char directory[] = "/tmp/gradientd-test-XXXXXX";

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

static struct gd_layout layout_of(struct gd_open_run *open_run) {
    struct gd_layout layout;
    gd_layout_init(&layout, open_run);
    gd_open_run_free(open_run);
    return layout;
}

// So much of the event file is written.
static void set_written_word(uint8_t *image, const struct gd_layout *layout, uint64_t bytes) {
    memcpy(image + layout->written_offset, &bytes, sizeof(bytes));
}

static uint64_t written_word(void) {
    uint64_t word;
    cr_assert_eq(pread(memory_fd, &word, sizeof(word), (off_t)run->layout.written_offset), sizeof(word));
    return word;
}

static void make_directory(void) {
    cr_assert_not_null(mkdtemp(directory));
}

static void remove_directory(void) {
    char command[64];
    state_directory = NULL;
    snprintf(command, sizeof(command), "rm -r %s", directory);
    cr_assert_eq(system(command), 0); // NOLINT(cert-env33-c)
}

TestSuite(resume_new, .init = make_directory, .fini = remove_directory);

Test(resume_new, the_memory_does_not_tell_of_a_file_that_was_not_kept) {
    struct gd_layout layout = layout_of(small_open_run());
    uint8_t *image = new_image(small_open_run());
    set_written_word(image, &layout, 60);

    new_run_on(image, small_open_run());
    state_directory = directory;
    cr_assert_eq(attach(), 0, "%s", error.text);
    uint64_t word = written_word(); // what a daemon that dies now would leave
    cr_expect_leq(word, gd_event_file_written(run->file));
    free_run();
    free(image);
}

Test(resume_new, more_first_records_than_their_ring_holds_are_damage) {
    struct gd_layout layout = layout_of(small_open_run());
    uint8_t *image = new_image(small_open_run());
    uint64_t appended = UINT64_C(1) << 40;
    ((struct gd_memory_header *)(void *)(image + layout.header_offset[0]))->appended_bytes = appended;
    set_written_word(image, &layout, appended);
    sign_image(image, &layout, 0);

    new_run_on(image, small_open_run());
    state_directory = directory;
    cr_expect_eq(attach(), -EBADMSG);
    cr_expect_eq(error.code, GD_ERROR_MEMORY);
    cr_expect(strstr(error.text, "ring"), "%s", error.text);
    free_run();
    free(image);
}

static struct gd_open_run *open_run_with_shadow(void) {
    struct gd_open_run *open_run = small_open_run();
    open_run->starts = (UINT32_C(1) << gd_adam_state_arrays(&open_run->adam)) - 1;
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

Test(resume_new, a_new_memory_may_hold_anything_where_a_name_will_be) {
    struct gd_layout layout = layout_of(small_open_run());
    uint8_t *image = calloc(1, layout.total_bytes);
    cr_assert_not_null(image);
    memcpy(image + layout.event_name_offset, "../x", 5);
    new_run_on(image, small_open_run());
    cr_assert_eq(attach(), 0, "%s", error.text);
    cr_assert_eq(pread(memory_fd, image, layout.total_bytes, 0), (ssize_t)layout.total_bytes);
    free_run();

    set_written_word(image, &layout, 0);
    new_run_on(image, small_open_run());
    cr_expect_eq(attach(), 0, "%s", error.text);
    free_run();
    free(image);
}
