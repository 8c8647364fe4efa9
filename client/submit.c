#include <errno.h>
#include <math.h>
#include <string.h>

#include "internal.h"

// How long a trainer that closes its run waits for a daemon where none can be reached: a service manager starts it
// again sooner. But first the old one must be gone: on two busy cores a killed daemon with 256 runs took up to 1.04 s.
static const double RESTART_SECONDS = 3.0;

static bool is_attached(const struct gradientd_run *run) {
    return run && *run->alive && run->link != CLIENT_LOST;
}

// Counts the step as taken by the optimiser, whether the daemon sees it or not.
static void pass_step(struct gradientd_run *run, const struct gradientd_step *step) {
    run->step = step->step;
    if (!step->not_applied)
        run->optimizer_step = step->optimizer_step ? step->optimizer_step : run->optimizer_step + 1;
}

// The message keeps pointers into the caller's strings until it is packed; protobuf-c's fields are not const.
static void fill_scalars(struct gradientd_run *run, const struct gradientd_scalar *scalars, size_t n_scalars) {
    for (size_t i = 0; i < n_scalars; i++) {
        union {
            const char *borrowed;
            char *field;
        } tag = {.borrowed = scalars[i].tag};
        run->scalars[i].tag = tag.field;
        run->scalars[i].value = scalars[i].value;
    }
}

static int send_scalars(struct gradientd_run *run, int64_t step, double wall_time,
                        const struct gradientd_scalar *scalars, size_t n_scalars) {
    fill_scalars(run, scalars, n_scalars);
    Gradientd__Scalars body = GRADIENTD__SCALARS__INIT;
    body.sequence = run->sequence + 1;
    body.step = step;
    body.wall_time = wall_time != 0.0 ? wall_time : client_now();
    body.n_scalars = n_scalars;
    body.scalars = run->scalar_pointers;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SCALARS;
    message.scalars = &body;
    int result = client_say(run, &message, NULL, 0);
    if (result == GRADIENTD_OK)
        run->sequence++;
    return result;
}

// What has changed stays in the message until a Snapshot takes it: a step that is skipped may have brought it.
static void fill_rates(struct gradientd_run *run, const struct gradientd_step *step) {
    for (uint32_t i = 0; i < run->n_parameter_groups; i++) {
        run->rates[i].learning_rate = step->learning_rates[i];
        if (step->beta2) {
            run->rates[i].has_beta2 = true;
            run->rates[i].beta2 = step->beta2[i];
        }
        if (step->eps) {
            run->rates[i].has_eps = true;
            run->rates[i].eps = step->eps[i];
        }
    }
}

// The message keeps pointers into the caller's arrays until it is packed.
static void fill_noise(struct gradientd_run *run, const struct gradientd_step *step, Gradientd__Snapshot *body) {
    body->has_batch_size = step->batch_size != 0.0;
    body->batch_size = step->batch_size;
    body->has_clip_factor = step->clip_factor != 0.0;
    body->clip_factor = step->clip_factor;
    body->n_squared_norms = step->n_squared_norms;
    body->squared_norms = run->squared_norm_pointers;
    for (size_t i = 0; i < step->n_squared_norms; i++) {
        const struct gradientd_squared_norm *given = &step->squared_norms[i];
        union {
            const double *borrowed;
            double *field;
        } per_group = {.borrowed = given->per_group};
        run->squared_norms[i].batch_size = given->batch_size;
        run->squared_norms[i].value = given->value;
        run->squared_norms[i].n_per_group = given->per_group ? run->n_groups : 0;
        run->squared_norms[i].per_group = per_group.field;
    }
}

// The gradient is dropped; the trainer's own values and changed rates are not.
static int skip_step(struct gradientd_run *run, const struct gradientd_step *step) {
    run->skipped++;
    pass_step(run, step);
    fill_rates(run, step);
    int result;
    if (step->n_scalars > 0)
        result = send_scalars(run, step->step, step->wall_time, step->scalars, step->n_scalars);
    else
        result = client_keep_in_touch(run);
    return result == GRADIENTD_DETACHED ? result : GRADIENTD_SKIPPED;
}

// Describes the streams that are there after the gradient. Returns how many those are.
static size_t fill_sides(const struct client_side_elements *sides, Gradientd__StreamElements *elements,
                         Gradientd__StreamElements **pointers) {
    size_t count = 0;
    for (enum client_side side = 0; side < CLIENT_SIDES; side++) {
        if (!sides[side].is_there)
            continue;
        gradientd__stream_elements__init(&elements[count]);
        elements[count].kind = client_side_kind(side);
        elements[count].has_slot = true;
        elements[count].slot = sides[side].slot;
        pointers[count] = &elements[count];
        count++;
    }
    return count;
}

// The slots are the daemon's until the commit that frees them.
static void pass_slots(struct gradientd_run *run, uint32_t slot, const struct client_side_elements *sides) {
    run->slots.used_sequence[slot] = run->sequence;
    for (enum client_side side = 0; side < CLIENT_SIDES; side++)
        if (sides[side].is_there)
            run->sides[side].slots.used_sequence[sides[side].slot] = run->sequence;
}

// Hands slot `slot`, and those of `sides`, over; run->groups_present says which groups are in it unless `all_present`.
static int send_snapshot(struct gradientd_run *run, const struct gradientd_step *step, uint32_t slot,
                         const struct client_side_elements *sides, bool all_present) {
    fill_rates(run, step);
    fill_scalars(run, step->scalars, step->n_scalars);
    pass_step(run, step);

    Gradientd__StreamElements elements = GRADIENTD__STREAM_ELEMENTS__INIT;
    const uint8_t *payload = NULL;
    size_t payload_bytes = 0;
    elements.kind = GRADIENTD__STREAM_KIND__GRADIENT;
    if (run->in_line.elements) {
        payload = client_inline_payload(run, run->elements * run->vector.element_bytes, &elements, &payload_bytes);
    } else {
        elements.has_slot = true;
        elements.slot = slot;
    }
    Gradientd__StreamElements side_elements[CLIENT_SIDES];
    Gradientd__StreamElements *streams[1 + CLIENT_SIDES] = {&elements};
    Gradientd__Snapshot body = GRADIENTD__SNAPSHOT__INIT;
    body.sequence = run->sequence + 1;
    body.step = step->step;
    body.has_optimizer_step = !step->not_applied;
    body.optimizer_step = run->optimizer_step;
    body.has_applied = step->not_applied;
    body.applied = !step->not_applied;
    body.wall_time = step->wall_time != 0.0 ? step->wall_time : client_now();
    body.n_streams = 1 + fill_sides(sides, side_elements, streams + 1);
    body.streams = streams;
    body.has_groups_present = !all_present;
    body.groups_present = (ProtobufCBinaryData){(run->n_groups + 7) / 8, run->groups_present};
    body.n_parameter_groups = run->n_parameter_groups;
    body.parameter_groups = run->rate_pointers;
    body.n_scalars = step->n_scalars;
    body.scalars = run->scalar_pointers;
    body.has_model_version = step->has_model_version;
    body.model_version = step->model_version;
    body.has_skipped = run->skipped > 0;
    body.skipped = run->skipped;
    fill_noise(run, step, &body);
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_SNAPSHOT;
    message.snapshot = &body;

    int result = client_say(run, &message, payload, payload_bytes);
    if (result == GRADIENTD_OK) {
        run->sequence++;
        pass_slots(run, slot, sides);
        run->snapshot_step = step->step;
        for (uint32_t i = 0; i < run->n_parameter_groups; i++)
            run->rates[i].has_beta2 = run->rates[i].has_eps = false;
    }
    if (result == GRADIENTD_SKIPPED)
        run->skipped++;
    return result;
}

static uint8_t *slot_elements(const struct gradientd_run *run, int64_t slot) {
    return run->slots.base + (uint64_t)slot * run->slots.stride_bytes;
}

int gradientd_submit(struct gradientd_run *run, const struct gradientd_step *step, const void *const *gradients) {
    if (!is_attached(run))
        return GRADIENTD_DETACHED;
    if (run->acquired >= 0)
        return client_fail(&run->error, EBUSY, "a slot is acquired: commit it first");
    if (!gradients)
        return client_fail(&run->error, EINVAL, "gradients is missing");
    int result = client_check_step(run, step);
    if (result < 0)
        return result;
    int64_t slot;
    struct client_side_elements sides[CLIENT_SIDES];
    client_sides_of_step(step, sides);
    result = client_find_room(run, sides, &slot);
    if (result != GRADIENTD_OK)
        return result == GRADIENTD_SKIPPED ? skip_step(run, step) : result;

    bool all_present = true;
    memset(run->groups_present, 0, (run->n_groups + 7) / 8);
    for (uint32_t i = 0; i < run->n_groups; i++) {
        if (!gradients[i]) {
            all_present = false;
            continue;
        }
        run->groups_present[i / 8] |= (uint8_t)(1 << i % 8);
    }
    if (run->gather)
        client_gather_step(run->gather, slot_elements(run, slot), gradients);
    else
        client_copy_elements(run, &run->vector, slot_elements(run, slot), gradients, 0, run->elements);
    client_sides_copy(run, sides);
    return send_snapshot(run, step, (uint32_t)slot, sides, all_present);
}

void *gradientd_acquire(struct gradientd_run *run) {
    if (!is_attached(run))
        return NULL;
    run->lends_slots = true;
    struct client_side_elements none[CLIENT_SIDES] = {0};
    if (run->acquired < 0)
        client_find_room(run, none, &run->acquired);
    return run->acquired < 0 ? NULL : slot_elements(run, run->acquired);
}

int gradientd_commit(struct gradientd_run *run, const struct gradientd_step *step, const bool *present) {
    if (!is_attached(run))
        return GRADIENTD_DETACHED;
    int result = client_check_step(run, step);
    if (result < 0)
        return result;
    if (run->acquired < 0)
        return skip_step(run, step);

    bool all_present = true;
    memset(run->groups_present, 0, (run->n_groups + 7) / 8);
    for (uint32_t i = 0; i < run->n_groups; i++) {
        if (!present || present[i])
            run->groups_present[i / 8] |= (uint8_t)(1 << i % 8);
        else
            all_present = false;
    }
    uint32_t slot = (uint32_t)run->acquired;
    struct client_side_elements sides[CLIENT_SIDES];
    run->acquired = -1;
    client_sides_of_step(step, sides);
    result = client_find_side_room(run, sides);
    if (result != GRADIENTD_OK)
        return result == GRADIENTD_SKIPPED ? skip_step(run, step) : result;
    client_sides_copy(run, sides);
    client_copy_fence(); // the trainer may have written past its caches
    return send_snapshot(run, step, slot, sides, all_present);
}

int gradientd_scalars(struct gradientd_run *run, int64_t step, double wall_time, const struct gradientd_scalar *scalars,
                      size_t n_scalars) {
    if (!is_attached(run))
        return GRADIENTD_DETACHED;
    if (!isfinite(wall_time) || step < 0)
        return client_fail(&run->error, EINVAL, "step is %lld and wall_time %f; they must not be negative, and finite",
                           (long long)step, wall_time);
    int result = client_check_scalars(run, step, scalars, n_scalars);
    if (result < 0)
        return result;
    return send_scalars(run, step, wall_time, scalars, n_scalars);
}

// Whether it is of no use to wait for a daemon any longer.
static bool is_given_up(const struct gradientd_run *run) {
    const struct client_way_back *way_back = &run->way_back;
    return run->link == CLIENT_AWAY && way_back->nobody_there &&
           client_now_monotonic() > way_back->nobody_since + RESTART_SECONDS;
}

// Waits until the daemon has named the last sequence and closed the connection: the file is complete.
static int wait_for_end(struct gradientd_run *run, uint64_t sequence) {
    double deadline = client_now_monotonic() + run->close_timeout;
    client_hurry_back(run);
    do {
        int result = GRADIENTD_OK;
        if (run->link == CLIENT_ATTACHED) {
            Gradientd__DaemonMessage *reply;
            int received = client_receive(run, deadline, &reply);
            if (received > 0)
                result = client_take_message(run, reply);
            else if (received < 0 && run->released_sequence == sequence)
                return GRADIENTD_OK;
            else if (received < 0)
                result = client_lose(run, "the daemon went away before the event file was complete");
        } else {
            double soon = client_now_monotonic() + 0.1;
            result = client_wait_to_come_back(run, soon < deadline ? soon : deadline);
        }
        if (run->way_back.renews) // whose old file nobody can end any more
            break;
        if (result != GRADIENTD_OK)
            return result;
    } while (client_now_monotonic() < deadline && !is_given_up(run));
    return client_detach(run, run->way_back.renews ? "the daemon that came back cannot go on with this run's memory"
                              : run->link == CLIENT_ATTACHED
                                  ? "the event file was not complete within close_timeout"
                                  : "the daemon did not come back before the event file was complete");
}

int client_end(struct gradientd_run *run, enum gradientd_outcome outcome) {
    if (!is_attached(run))
        return GRADIENTD_DETACHED;
    Gradientd__CloseRun body = GRADIENTD__CLOSE_RUN__INIT;
    body.sequence = run->sequence + 1;
    body.outcome = outcome == GRADIENTD_FAILURE ? GRADIENTD__OUTCOME__FAILURE : GRADIENTD__OUTCOME__SUCCESS;
    body.has_skipped = body.has_step = body.has_optimizer_step = run->step > run->snapshot_step;
    body.skipped = run->skipped;
    body.step = run->step;
    body.optimizer_step = run->optimizer_step;
    Gradientd__ClientMessage message = GRADIENTD__CLIENT_MESSAGE__INIT;
    message.message_case = GRADIENTD__CLIENT_MESSAGE__MESSAGE_CLOSE_RUN;
    message.close_run = &body;
    if (client_say(run, &message, NULL, 0) != GRADIENTD_OK)
        return GRADIENTD_DETACHED;

    return wait_for_end(run, body.sequence);
}

uint64_t gradientd_skipped(const struct gradientd_run *run) {
    return run ? run->skipped : 0;
}

const char *gradientd_event_path(const struct gradientd_run *run) {
    return run ? run->event_path : NULL;
}

const char *gradientd_last_error(const struct gradientd_run *run) {
    return run ? run->error.text : "";
}
