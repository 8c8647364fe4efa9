#include "run_accept.h"

#include "run_sides.h"

static int refuse(struct gd_error *ret_error, const char *field, uint64_t value, const char *rule, uint64_t limit) {
    return gd_error_set(ret_error, GD_ERROR_INVALID, field, "%s is %llu, it must be %s %llu", field,
                        (unsigned long long)value, rule, (unsigned long long)limit);
}

bool gd_run_starts_are_complete(const struct gd_run *run, uint64_t starts) {
    return starts == run->open_run->starts;
}

static int check_optimizer_step(struct gd_run *run, struct gd_submission *snapshot, struct gd_error *ret_error) {
    if (!snapshot->applied)
        return 0;
    if (!snapshot->has_optimizer_step)
        snapshot->optimizer_step = run->received_optimizer_step + 1;
    if (snapshot->optimizer_step <= run->received_optimizer_step)
        return refuse(ret_error, "optimizer_step", snapshot->optimizer_step, "above the last applied one,",
                      run->received_optimizer_step);
    if (run->received_optimizer_step > 0)
        return 0;
    for (uint32_t i = 0; i < run->open_run->n_groups; i++)
        if (run->open_run->groups[i].step_lag >= snapshot->optimizer_step)
            return refuse(ret_error, "group.step_lag", run->open_run->groups[i].step_lag,
                          "below the first optimizer_step,", snapshot->optimizer_step);
    return 0;
}

// In a mapped run the trainer owns the free slots, so the daemon cannot take one for inline elements.
static int check_delivery(const struct gd_run *run, const struct gd_submission *submission, uint32_t slots,
                          struct gd_error *ret_error) {
    if ((submission->delivery == GD_IN_SLOT) != (run->memory.fd >= 0))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams.slot",
                            run->memory.fd >= 0 ? "the elements have no slot; this run was attached with memory"
                                                : "the elements have a slot; this run was attached without memory");
    if (submission->delivery == GD_IN_SLOT && submission->slot >= slots)
        return refuse(ret_error, "slot", submission->slot, "below the number of slots,", slots);
    return 0;
}

static int check_slot(struct gd_run *run, const struct gd_submission *snapshot, struct gd_error *ret_error) {
    int result = check_delivery(run, snapshot, run->layout.slots, ret_error);
    if (result < 0 || snapshot->delivery != GD_IN_SLOT)
        return result;
    if (atomic_load_explicit(&run->slot_use[snapshot->slot], memory_order_acquire) != GD_SLOT_FREE)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "slot", "slot is %u, which is in use", snapshot->slot);
    return 0;
}

static int check_snapshot(struct gd_run *run, struct gd_submission *snapshot, struct gd_error *ret_error) {
    uint32_t bitmap_bytes = (run->open_run->n_groups + 7) / 8;

    if (!gd_run_starts_are_complete(run, run->received_starts))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                            "start_streams has %d entries; a Snapshot came before there was a StartVector for each",
                            __builtin_popcount(run->open_run->starts));
    // SessionLog START is written already, and a reader drops what earlier files have from that step on
    bool first = run->received_step < 0;
    if (first && (snapshot->step < run->open_run->first_step ||
                  (snapshot->step > run->open_run->first_step && snapshot->skipped == 0)))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "step",
                            "step is %lld, the first one must be OpenRun's first_step, %lld", (long long)snapshot->step,
                            (long long)run->open_run->first_step);
    if (snapshot->step <= run->received_step)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "step", "step is %lld, it must be above the last one, %lld",
                            (long long)snapshot->step, (long long)run->received_step);
    if (snapshot->n_rates != run->open_run->n_parameter_groups)
        return refuse(ret_error, "parameter_groups", snapshot->n_rates, "as many as OpenRun has,",
                      run->open_run->n_parameter_groups);
    if (snapshot->groups_present && snapshot->groups_present_bytes != bitmap_bytes)
        return refuse(ret_error, "groups_present", snapshot->groups_present_bytes, "as many bytes as groups need,",
                      bitmap_bytes);
    for (uint32_t i = 0; i < snapshot->n_squared_norms; i++)
        if (snapshot->squared_norms[i].n_per_group > 0 &&
            snapshot->squared_norms[i].n_per_group != run->open_run->n_groups)
            return refuse(ret_error, "squared_norms.per_group", snapshot->squared_norms[i].n_per_group,
                          "as many entries as there are groups,", run->open_run->n_groups);
    int result = check_slot(run, snapshot, ret_error);
    if (result == 0)
        result = gd_run_sides_check(run, snapshot, ret_error);
    return result < 0 ? result : check_optimizer_step(run, snapshot, ret_error);
}

static int check_start(const struct gd_run *run, const struct gd_submission *start, struct gd_error *ret_error) {
    if (!(run->open_run->starts >> start->start & 1))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                            "a StartVector came that is none of OpenRun's %d start_streams",
                            __builtin_popcount(run->open_run->starts));
    if (run->received_starts >> start->start & 1)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "start_streams",
                            "a second StartVector of the same kind, %u, came", start->start + GRADIENTD_START_KIND_MIN);
    if (start->start >= GD_STATE_ARRAYS_MAX) // of a stream, in its first slot
        return check_delivery(run, start, 1, ret_error);
    if (run->received_starts & ((1 << GD_STATE_ARRAYS_MAX) - 1) &&
        start->optimizer_step != run->received_optimizer_step)
        return refuse(ret_error, "optimizer_step", start->optimizer_step, "that of the other StartVector,",
                      run->received_optimizer_step);
    for (uint32_t i = 0; i < run->open_run->n_groups; i++)
        if (run->open_run->groups[i].step_lag > start->optimizer_step)
            return refuse(ret_error, "optimizer_step", start->optimizer_step, "at least every group's step_lag, as",
                          run->open_run->groups[i].step_lag);
    return check_delivery(run, start, 1, ret_error);
}

int gd_run_accept(struct gd_run *run, struct gd_submission *submission, struct gd_error *ret_error) {
    if (run->phase != GD_RUN_ACTIVE)
        return gd_error_set(ret_error, GD_ERROR_PROTOCOL, "message", "the run takes no submission now");
    if (submission->sequence != run->received_sequence + 1)
        return refuse(ret_error, "sequence", submission->sequence, "the next one,", run->received_sequence + 1);
    int checked = 0;
    if (submission->kind == GD_SUBMISSION_SNAPSHOT)
        checked = check_snapshot(run, submission, ret_error);
    if (submission->kind == GD_SUBMISSION_START)
        checked = check_start(run, submission, ret_error);
    if (checked < 0)
        return checked;
    for (uint32_t i = 0; i < submission->n_scalars; i++) {
        struct gd_user_scalar *scalar = &submission->scalars[i];
        int result = gd_user_tags_use(run->user_tags, scalar->tag, submission->step, &scalar->index, ret_error);
        if (result < 0)
            return result;
    }
    return 0;
}
