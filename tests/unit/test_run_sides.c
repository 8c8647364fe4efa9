// Streams beside the gradient in a run's state: what a resumed run does not take, and what a stream's slots are kept
// for.
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "history.h"
#include "run_rig.h"
#include "run_sides.h"

static const enum gd_side PARAMETERS = GD_SIDE_PARAMETERS;

static struct gd_side_state *state_of_parameters(void) {
    return gd_run_state_side(run->state, run->open_run, PARAMETERS);
}

// A run that has committed two snapshots with parameters, in slots 0 and 1 of theirs.
static void begin(void) {
    struct gd_open_run *open_run = small_open_run();
    open_run->sides[PARAMETERS] =
        (struct gd_side_stream){.elements = open_run->elements, .stride = 1, .element_type = GD_F32, .lags = 1};
    start(open_run);
    for (uint32_t i = 0; i < 2; i++) {
        struct block *block = new_snapshot(i + 1, i + 1, i);
        block->submission.sides = UINT32_C(1) << PARAMETERS;
        block->submission.side_slot[PARAMETERS] = i;
        submit_good(block);
        work();
    }
}

TestSuite(run_sides, .init = begin, .fini = free_run);

Test(run_sides, the_first_snapshot_and_the_last_stay) {
    const struct gd_side_state *state = state_of_parameters();
    cr_expect_eq(state->start_slot, 0);
    cr_expect_eq(state->slots[0].in_use, 1);
    cr_expect_eq(state->slots[1].in_use, 1);
    cr_expect_eq(state->slots[1].step, 2);
    cr_expect_eq(gd_run_sides_restore(run, &error), 0);
}

static void expect_refused(const char *what, const char *says) {
    error = (struct gd_error){.field = "", .text = ""};
    cr_expect_eq(gd_run_sides_restore(run, &error), -EBADMSG, "%s", what);
    cr_expect_eq(error.code, GD_ERROR_MEMORY, "%s", what);
    cr_expect(strstr(error.text, says), "%s: %s", what, error.text);
}

#define FORGED(what, says, change)                                                                                     \
    do {                                                                                                               \
        struct gd_side_state *state = state_of_parameters(), before = *state;                                          \
        change;                                                                                                        \
        expect_refused(what, says);                                                                                    \
        *state = before;                                                                                               \
    } while (0)

Test(run_sides, what_a_trainer_may_have_changed_is_not_trusted) {
    uint32_t n_slots = (uint32_t)run->layout.sides[PARAMETERS].slots;
    FORGED("a step before all", "ahead of the run", state->step = -2);
    FORGED("a step to come", "ahead of the run", state->step = 3);
    FORGED("a start beyond the slots", "nowhere", state->start_slot = n_slots);
    FORGED("a start far beyond", "nowhere", state->start_slot = UINT32_MAX - 1);
    FORGED("a start that is free", "nowhere", state->start_slot = 2);
    FORGED("a slot in use seven times", "neither free nor in use", state->slots[1].in_use = 7);
    FORGED("a slot of a step to come", "ahead of the run", state->slots[1].step = 3);
    FORGED("a slot that no commit has used", "ahead of the run", state->slots[1].sequence = 9);
    FORGED("a start that nobody handed over", "ahead of the run", state->slots[0].step = GD_HISTORY_START_STEP);
    FORGED("no slot left", "no slot", for (uint32_t i = 0; i < n_slots; i++) state->slots[i] = state->slots[0]);
    cr_expect_eq(gd_run_sides_restore(run, &error), 0, "%s", error.text);
}
