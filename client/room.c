#include <poll.h>

#include "internal.h"

// What a step needs: a slot of each of its streams.
struct room {
    struct client_side_elements *sides;
    bool has_gradient; // already
    int64_t slot;
};

// The slot, -1 unless there is one of each stream.
static int64_t find_slots(const struct gradientd_run *run, struct room *room) {
    int64_t slot = room->has_gradient ? room->slot : client_find_slot(&run->slots);
    return slot >= 0 && client_sides_find_slots(run, room->sides) ? slot : -1;
}

// Waits up to max_stall for slots of the shared memory.
static int wait_for_slots(struct gradientd_run *run, struct room *room, int64_t *ret_slot) {
    *ret_slot = find_slots(run, room);
    if (*ret_slot >= 0)
        return GRADIENTD_OK;
    if (run->max_stall <= 0.0)
        return GRADIENTD_SKIPPED;

    double deadline = client_now_monotonic() + run->max_stall;
    do {
        if (run->link != CLIENT_ATTACHED && deadline > run->way_back.lost_at + run->max_stall)
            deadline = run->way_back.lost_at + run->max_stall; // a daemon that is gone costs max_stall once
        atomic_store_explicit(run->waiting, 1, memory_order_relaxed);
        // pairs with the daemon's fence, between its slot words and its look at `waiting`
        atomic_thread_fence(memory_order_seq_cst);
        *ret_slot = find_slots(run, room);
        if (*ret_slot >= 0)
            return GRADIENTD_OK;
        int result =
            run->link == CLIENT_ATTACHED ? client_listen(run, deadline) : client_wait_to_come_back(run, deadline);
        if (result != GRADIENTD_OK)
            return result;
    } while (client_now_monotonic() < deadline);
    *ret_slot = find_slots(run, room);
    return *ret_slot >= 0 ? GRADIENTD_OK : GRADIENTD_SKIPPED;
}

// What the daemon has to say, if its word tells that there is an Error. Alerts can wait: a step costs one system call.
static int read_notices(struct gradientd_run *run) {
    uint16_t errors = (uint16_t)atomic_load_explicit(run->notices, memory_order_acquire);
    if (errors == run->errors_seen || run->link != CLIENT_ATTACHED)
        return GRADIENTD_OK;
    run->errors_seen = errors;
    return client_listen_to_all(run);
}

// Waits up to max_stall until the last step's elements have left.
static int wait_for_payload(struct gradientd_run *run) {
    double deadline = client_now_monotonic() + run->max_stall;
    for (;;) {
        int result = client_listen_to_all(run); // no word tells when there is something
        if (result != GRADIENTD_OK || run->output.payload_bytes == 0)
            return result;
        if (run->max_stall <= 0.0 || client_wait(run, deadline, POLLIN | POLLOUT) <= 0)
            return GRADIENTD_SKIPPED;
        if (client_flush(run) < 0)
            return client_lose_after_send(run);
    }
}

int client_find_room(struct gradientd_run *run, struct client_side_elements *sides, int64_t *ret_slot) {
    struct room room = {.sides = sides};
    *ret_slot = -1;
    int result = client_come_back(run);
    if (result != GRADIENTD_OK)
        return result;
    if (run->in_line.elements) {
        if (client_flush(run) < 0)
            return client_lose_after_send(run);
        result = wait_for_payload(run);
        *ret_slot = result == GRADIENTD_OK ? 0 : -1;
        return result;
    }
    result = read_notices(run);
    return result == GRADIENTD_OK ? wait_for_slots(run, &room, ret_slot) : result;
}

int client_find_side_room(struct gradientd_run *run, struct client_side_elements *sides) {
    struct room room = {.sides = sides, .has_gradient = true};
    int64_t slot;
    return run->in_line.elements ? GRADIENTD_OK : wait_for_slots(run, &room, &slot);
}
