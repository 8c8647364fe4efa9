#include "run_sides.h"

#include <math.h>

#include "diagnostics/coherence.h"
#include "diagnostics/curvature.h"
#include "diagnostics/function_space.h"
#include "diagnostics/thinning.h"
#include "history.h"

static const uint32_t NO_SLOT = UINT32_MAX;

static bool has(const struct gd_submission *snapshot, enum gd_side side) {
    return snapshot->sides >> side & 1;
}

static struct gd_side_state *state_of(const struct gd_run *run, enum gd_side side) {
    return gd_run_state_side(run->state, run->open_run, side);
}

static struct gd_history history_of(const struct gd_run *run, enum gd_side side) {
    const struct gd_side_stream *stream = &run->open_run->sides[side];
    struct gd_side_state *state = state_of(run, side);
    return (struct gd_history){
        .slots = state->slots,
        .n_slots = (uint32_t)run->layout.sides[side].slots,
        .lags = stream->lags,
        .stride = stream->stride,
        .first_step = run->open_run->first_step,
        .pinned = state->start_slot,
    };
}

void gd_run_sides_init(struct gd_run *run) {
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!gd_open_run_has_side(run->open_run, side))
            continue;
        state_of(run, side)->step = -1;
        state_of(run, side)->start_slot = NO_SLOT;
    }
}

int gd_run_sides_check(const struct gd_run *run, const struct gd_submission *snapshot, struct gd_error *ret_error) {
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        uint32_t slot = snapshot->side_slot[side];
        if (!has(snapshot, side))
            continue;
        if (!gd_open_run_has_side(run->open_run, side))
            return gd_error_set(ret_error, GD_ERROR_INVALID, "streams",
                                "streams has kind %d, which OpenRun's streams have not", (int)side + 2);
        if (slot >= run->layout.sides[side].slots)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "slot",
                                "slot is %u, it must be below the number of slots, %u", slot,
                                (unsigned)run->layout.sides[side].slots);
        if (atomic_load_explicit(&run->side_slot_use[side][slot], memory_order_acquire) != GD_SLOT_FREE)
            return gd_error_set(ret_error, GD_ERROR_INVALID, "slot", "slot is %u, which is in use", slot);
    }
    return 0;
}

static void take_slot(struct gd_run *run, enum gd_side side, uint32_t slot) {
    atomic_store_explicit(&run->side_slot_use[side][slot], GD_SLOT_TAKEN, memory_order_relaxed);
}

void gd_run_sides_take(struct gd_run *run, const struct gd_submission *snapshot) {
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        if (has(snapshot, side))
            take_slot(run, side, snapshot->side_slot[side]);
}

void gd_run_sides_take_start(struct gd_run *run, enum gd_side side) {
    take_slot(run, side, 0);
}

void gd_run_sides_start(struct gd_run *run, enum gd_side side, uint64_t sequence) {
    struct gd_side_state *state = state_of(run, side);
    state->start_slot = 0;
    state->slots[0] = (struct gd_slot_state){.step = GD_HISTORY_START_STEP, .sequence = sequence, .in_use = 1};
}

static int refuse(struct gd_error *ret_error, const char *what) {
    return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory", "memory is damaged: %s", what);
}

static int restore_side(struct gd_run *run, enum gd_side side, struct gd_error *ret_error) {
    const struct gd_side_state *state = state_of(run, side);
    uint64_t n_slots = run->layout.sides[side].slots, in_use = 0;

    if (state->step < -1 || state->step > run->state->step)
        return refuse(ret_error, "a stream in its state is ahead of the run");
    if (state->start_slot != NO_SLOT && (state->start_slot >= n_slots || state->slots[state->start_slot].in_use != 1))
        return refuse(ret_error, "the first snapshot of a stream in its state is nowhere");
    for (uint32_t i = 0; i < n_slots; i++) {
        const struct gd_slot_state *slot = &state->slots[i];
        if (!slot->in_use)
            continue;
        if (slot->in_use != 1)
            return refuse(ret_error, "a slot in its state is neither free nor in use");
        bool is_start = slot->step == GD_HISTORY_START_STEP && i == state->start_slot &&
                        gd_open_run_starts_side(run->open_run, side);
        if ((slot->step < 0 && !is_start) || slot->step > state->step || slot->sequence > run->state->sequence)
            return refuse(ret_error, "a slot in its state is ahead of the run");
        take_slot(run, side, i);
        in_use++;
    }
    return in_use < n_slots ? 0 : refuse(ret_error, "no slot in its state is free");
}

int gd_run_sides_restore(struct gd_run *run, struct gd_error *ret_error) {
    int result = 0;
    for (enum gd_side side = 0; result == 0 && side < GD_SIDES; side++)
        if (gd_open_run_has_side(run->open_run, side))
            result = restore_side(run, side, ret_error);
    return result;
}

// Whether PARAMETERS and PROBE_GRADIENT both have a snapshot the same number of steps ago.
static bool has_secant(const struct gd_run *run, const struct gd_side_input *input) {
    const struct gd_side_stream *sides = run->open_run->sides;
    return input->known_lags[GD_SIDE_PARAMETERS] & 1 && input->known_lags[GD_SIDE_PROBE_GRADIENT] & 1 &&
           sides[GD_SIDE_PARAMETERS].stride == sides[GD_SIDE_PROBE_GRADIENT].stride;
}

void gd_run_sides_begin(struct gd_run *run, const struct gd_submission *snapshot) {
    struct gd_side_input *input = &run->side_input;
    *input = (struct gd_side_input){.present = snapshot->sides};
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!has(snapshot, side))
            continue;
        struct gd_history history = history_of(run, side);
        input->slot[side] = snapshot->side_slot[side];
        input->known_lags[side] = gd_history_find(&history, snapshot->step, input->lag_slot[side]);
        input->start_slot[side] = state_of(run, side)->start_slot;
    }
    for (uint32_t i = 0; i < GD_LAG_MAX; i++)
        if (input->known_lags[GD_SIDE_PROBE_GRADIENT] >> i & 1)
            input->probe_squared_norm_past[i] =
                state_of(run, GD_SIDE_PROBE_GRADIENT)->squared_norms[input->lag_slot[GD_SIDE_PROBE_GRADIENT][i]];
    input->has_secant = has_secant(run, input);
}

// The one learning rate of a run under sgd, NaN: there is no such.
static double common_rate(const struct gd_run *run) {
    const struct gd_open_run *open_run = run->open_run;
    const struct gd_adam_rates *rates = gd_run_state_rates(run->state, open_run->n_groups);
    if (open_run->adam.rule != GD_RULE_SGD)
        return (double)NAN;
    for (uint32_t i = 1; i < open_run->n_parameter_groups; i++)
        if (rates[i].learning_rate != rates[0].learning_rate)
            return (double)NAN;
    return rates[0].learning_rate;
}

static void probe_values(struct gd_run *run, const struct gd_side_sums *sums, struct gd_side_values *values) {
    const struct gd_side_input *input = &run->side_input;
    struct gd_side_state *state = state_of(run, GD_SIDE_PROBE_GRADIENT);
    uint32_t max_lag = run->open_run->max_lag;
    struct gd_values coherence = {0};

    gd_coherence_values(&sums->probe, max_lag, input->known_lags[GD_SIDE_PROBE_GRADIENT], &coherence);
    for (enum gd_tag tag = 0; tag <= GD_TAG_TOLERABLE_STALENESS; tag++)
        if (gd_values_has(&coherence, tag))
            gd_side_values_set(values, GD_SIDE_TAG_COHERENCE + (enum gd_side_tag)tag, coherence.value[tag]);
    if (input->has_secant)
        gd_curvature_values(&sums->differences[GD_SIDE_PARAMETERS], common_rate(run), &state->lipschitz_max, values);
    if (gd_values_has(&coherence, GD_TAG_MU))
        gd_staleness_bound(coherence.value[GD_TAG_MU], max_lag, state->lipschitz_max, run->state->adam.optimizer_step,
                           values);
    state->squared_norms[input->slot[GD_SIDE_PROBE_GRADIENT]] = sums->probe.squared_norm;
}

static struct gd_movement movement_of(const struct gd_run *run, const struct gd_side_sums *sums, enum gd_side side) {
    return (struct gd_movement){
        .sums = &sums->differences[side],
        .has_before = run->side_input.known_lags[side] & 1,
        .has_start = run->side_input.start_slot[side] != NO_SLOT,
    };
}

static int64_t start_step(const struct gd_run *run, enum gd_side side) {
    return state_of(run, side)->slots[run->side_input.start_slot[side]].step;
}

static void output_values(const struct gd_run *run, const struct gd_side_sums *sums, struct gd_side_values *values) {
    const struct gd_side_stream *sides = run->open_run->sides;
    struct gd_movement outputs = movement_of(run, sums, GD_SIDE_OUTPUTS);
    struct gd_movement parameters = movement_of(run, sums, GD_SIDE_PARAMETERS);
    bool has_both = run->side_input.present >> GD_SIDE_PARAMETERS & 1;
    gd_function_values(&outputs, sides[GD_SIDE_OUTPUTS].examples, has_both ? &parameters : NULL,
                       sides[GD_SIDE_OUTPUTS].stride == sides[GD_SIDE_PARAMETERS].stride,
                       has_both && outputs.has_start && parameters.has_start &&
                           start_step(run, GD_SIDE_OUTPUTS) == start_step(run, GD_SIDE_PARAMETERS),
                       values);
}

// What one of the snapshot's streams shows.
static struct gd_side_values values_of(struct gd_run *run, const struct gd_side_sums *sums, enum gd_side side) {
    struct gd_side_values values = {0};
    struct gd_movement parameters = movement_of(run, sums, GD_SIDE_PARAMETERS);
    if (side == GD_SIDE_PROBE_GRADIENT)
        probe_values(run, sums, &values);
    else if (side == GD_SIDE_PARAMETERS)
        gd_parameters_values(&parameters, &values);
    else
        output_values(run, sums, &values);
    return values;
}

static void turn_history(struct gd_run *run, const struct gd_submission *snapshot, enum gd_side side) {
    struct gd_side_state *state = state_of(run, side);
    uint32_t slot = snapshot->side_slot[side], left[GD_SLOTS_MAX];
    if (gd_side_keeps_start(side) && state->start_slot == NO_SLOT)
        state->start_slot = slot;
    struct gd_history history = history_of(run, side);
    uint32_t n_left = gd_history_turn(&history, slot, snapshot->step, snapshot->sequence, left);
    for (uint32_t i = 0; i < n_left; i++)
        atomic_store_explicit(&run->side_slot_use[side][left[i]], GD_SLOT_FREE, memory_order_release);
}

void gd_run_sides_end(struct gd_run *run, const struct gd_submission *snapshot) {
    struct gd_side_sums sums;
    struct gd_side_values values[GD_SIDES];
    if (snapshot->sides == 0)
        return;
    gd_side_analysis_end(run->side_analysis, &run->side_input, &sums);
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        if (has(snapshot, side))
            values[side] = values_of(run, &sums, side); // before the histories turn: one may look at another
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!has(snapshot, side))
            continue;
        struct gd_side_state *state = state_of(run, side);
        bool writes = !run->open_run->thinning || gd_thinning_writes(state->step, snapshot->step);
        if (writes)
            gd_scalar_list_add_side_values(run->scalars, &values[side], state->described);
        state->unwritten = writes ? (struct gd_side_values){0} : values[side];
        turn_history(run, snapshot, side);
        state->step = snapshot->step;
    }
}

int64_t gd_run_sides_list_unwritten(struct gd_run *run, enum gd_side side) {
    struct gd_side_state *state = state_of(run, side);
    gd_scalar_list_clear(run->scalars);
    gd_scalar_list_add_side_values(run->scalars, &state->unwritten, state->described);
    state->unwritten = (struct gd_side_values){0};
    return state->step;
}
