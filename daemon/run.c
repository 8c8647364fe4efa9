#include "run.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dashboard.h"
#include "fault.h"
#include "foreign_fd.h"
#include "history.h"
#include "run_accept.h"
#include "run_records.h"
#include "run_resume.h"
#include "run_sides.h"

// The one place that changes a run's phase.
static void set_phase(struct gd_run *run, enum gd_run_phase phase) {
    static const uint8_t allowed[] = {
        [GD_RUN_LAID_OUT] = 1 << GD_RUN_ACTIVE,
        [GD_RUN_ACTIVE] = 1 << GD_RUN_CLOSING | 1 << GD_RUN_LEAVING,
        [GD_RUN_CLOSING] = 1 << GD_RUN_ENDED,
        [GD_RUN_LEAVING] = 1 << GD_RUN_ENDED,
        [GD_RUN_ENDED] = 0,
    };
    assert(allowed[run->phase] & 1 << phase);
    run->phase = phase;
}

uint64_t gd_run_own_bytes(const struct gd_open_run *open_run, const struct gd_layout *layout) {
    uint64_t bytes = gd_open_run_bytes(open_run) + sizeof(struct gd_run) + gd_user_tags_bytes_max() +
                     gd_analysis_bytes(open_run) + gd_side_analysis_bytes(open_run) + gd_scalar_list_bytes(open_run) +
                     GD_RUN_QUEUE_BYTES_MAX;
    bytes += layout->step_records_max + gd_dashboard_content_bytes_max(open_run);
    bytes += gd_heatmap_bytes(open_run->max_lag + 1) +
             ((uint64_t)open_run->series.n_series + 1) * sizeof(struct gd_series_norms);
    bytes += 2 * layout->state_bytes; // the run's, and one to compare with when it goes on from its memory
    return bytes;
}

int gd_run_new_consume(struct gd_open_run *open_run, struct gd_run **ret_run) {
    struct gd_run *run = calloc(1, sizeof(*run));
    if (!run)
        return -ENOMEM;
    gd_layout_init(&run->layout, open_run);
    run->phase = GD_RUN_LAID_OUT;
    run->received_step = -1;
    run->memory.fd = -1;
    run->queue_tail = &run->queue_head;

    run->state = calloc(1, run->layout.state_bytes);
    run->records = malloc(run->layout.step_records_max);
    run->series_norms = calloc((size_t)open_run->series.n_series + 1, sizeof(*run->series_norms));
    run->content = malloc(gd_dashboard_content_bytes_max(open_run));
    if (!run->state || !run->records || !run->content || !run->series_norms ||
        gd_heatmap_new(open_run->max_lag + 1, &run->heatmap) < 0 || gd_scalar_list_new(open_run, &run->scalars) < 0 ||
        gd_user_tags_new(&run->user_tags) < 0) {
        gd_run_free(run);
        return -ENOMEM;
    }
    run->open_run = open_run;
    run->state->step = -1;
    for (uint32_t rule = 0; rule <= open_run->n_shadows; rule++)
        for (uint32_t i = 0; i < open_run->n_groups; i++)
            gd_run_state_rule_groups(run->state, open_run, rule)[i].adam.lag = open_run->groups[i].step_lag;
    memcpy(gd_run_state_rates(run->state, open_run->n_groups), open_run->parameter_groups,
           open_run->n_parameter_groups * sizeof(*open_run->parameter_groups));
    gd_run_sides_init(run);
    *ret_run = run;
    return 0;
}

void gd_run_free(struct gd_run *run) {
    if (!run)
        return;
    while (run->queue_head) {
        struct gd_submission *submission = run->queue_head;
        run->queue_head = submission->next;
        free(submission);
    }
    free(run->arriving);
    gd_event_file_free(run->file);
    gd_analysis_free(run->analysis);
    gd_side_analysis_free(run->side_analysis);
    gd_memory_deinit(&run->memory);
    gd_user_tags_free(run->user_tags);
    gd_open_run_free(run->open_run);
    gd_scalar_list_free(run->scalars);
    gd_heatmap_free(run->heatmap);
    free(run->series_norms);
    free(run->records);
    free(run->content);
    free(run->state);
    free(run);
}

// Stores the state and `bytes` of run->records. Returns true when the client waits.
static bool commit(struct gd_run *run, size_t bytes) {
    struct gd_memory_commit commit = {
        .open_run = run->open_run,
        .state = run->state,
        .records = run->records,
        .records_bytes = bytes,
        .appended_bytes = run->appended_bytes,
    };
    bool waiting = gd_memory_commit(&run->memory, &commit);
    run->appended_bytes += bytes;
    gd_event_file_append(run->file, run->appended_bytes);
    return waiting || run->memory.fd < 0; // without shared words a message alone tells of a commit
}

static int start_file_consume(struct gd_run *run, const struct gd_run_attachment *attachment,
                              const struct gd_memory_restored *restored) {
    struct gd_event_file_options options = {
        .fd = attachment->event_fd,
        .place = {attachment->state_directory, attachment->uid, attachment->pid, attachment->admin_group,
                  run->open_run->run, run->event_name},
        .outbox = run->memory.base + run->layout.outbox_offset,
        .outbox_bytes = run->layout.outbox_bytes,
        .step_records_max = run->layout.step_records_max,
        .appended_bytes = restored->appended_bytes,
        .written_bytes = restored->written_bytes,
        .written_word = (uint64_t *)(void *)(run->memory.base + run->layout.written_offset),
        .wall_time = run->open_run->wall_time,
        .counters = attachment->counters,
        .notify = attachment->notify,
        .notify_context = attachment->notify_context,
    };
    int result = gd_event_file_new(&options, &run->file);
    if (result < 0)
        gd_foreign_fd_close(attachment->event_fd, attachment->fds);
    return result;
}

// Takes the memory. Returns enum gd_memory_past, or a negative errno with *ret_error set.
static int take_memory_consume(struct gd_run *run, int fd, uid_t uid, struct gd_memory_restored *ret_restored,
                               struct gd_error *ret_error) {
    if (fd < 0 && gd_open_run_sides_before(run->open_run, GD_SIDES) > 0)
        return gd_error_set(ret_error, GD_ERROR_UNSUPPORTED, "streams",
                            "streams has more than GRADIENT, and the run was attached without memory: inline, GRADIENT "
                            "alone is supported");
    int result = fd >= 0 ? gd_memory_attach_consume(&run->memory, fd, uid, &run->layout, ret_error)
                         : gd_memory_init_own(&run->memory, &run->layout);
    return result < 0 ? result : gd_run_resume(run, ret_restored, ret_error);
}

// A first file whose name was not kept is nobody's: the first records, all there are, go into another one.
static int begin_file_anew(const struct gd_run *run, struct gd_memory_restored *restored, struct gd_error *ret_error) {
    restored->written_bytes = 0;
    if (restored->appended_bytes <= run->layout.outbox_bytes)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_MEMORY, "memory",
                        "memory is damaged: the first records have %llu bytes, their ring %llu",
                        (unsigned long long)restored->appended_bytes, (unsigned long long)run->layout.outbox_bytes);
}

int gd_run_attach(struct gd_run *run, const struct gd_run_attachment *attachment, struct gd_error *ret_error) {
    struct gd_memory_restored restored = {0};
    int past = take_memory_consume(run, attachment->memory_fd, attachment->uid, &restored, ret_error);
    gd_fault_reach(GD_FAULT_ATTACH_RESTORED);
    int result = past < 0 ? past : 0;
    if (result == 0 && attachment->event_fd < 0 && !*run->event_name && run->state->sequence == 0)
        result = begin_file_anew(run, &restored, ret_error);
    if (result == 0)
        result = gd_analysis_new(run->open_run, &run->memory, attachment->kernels, &run->analysis);
    if (result == 0 && gd_side_analysis_bytes(run->open_run) > 0)
        result = gd_side_analysis_new(run->open_run, &run->memory, attachment->kernels, &run->side_analysis);
    if (result < 0) {
        gd_foreign_fd_close(attachment->event_fd, attachment->fds);
        return result;
    }
    if (attachment->counters)
        gd_analysis_set_progress(run->analysis, &attachment->counters->progress);
    if (attachment->counters && run->side_analysis)
        gd_side_analysis_set_progress(run->side_analysis, &attachment->counters->progress);
    result = start_file_consume(run, attachment, &restored);
    if (result < 0)
        return result;
    set_phase(run, GD_RUN_ACTIVE);
    if (past == GD_MEMORY_NEW) {
        gd_memory_store_event_name(&run->memory, ""); // of a new memory only the headers were looked at
        commit(run, gd_run_records_start(run));
        return 0;
    }
    gd_memory_publish(&run->memory, run->open_run, run->state);
    gd_fault_reach(GD_FAULT_ATTACH_PUBLISHED);
    if (run->state->ended)
        set_phase(run, GD_RUN_CLOSING);
    return 0;
}

void gd_run_keep_event_name(struct gd_run *run) {
    const char *path = gd_event_file_path(run->file);
    if (path)
        gd_memory_store_event_name(&run->memory, strrchr(path, '/') + 1);
}

static void take_slot(struct gd_run *run, uint32_t slot) {
    atomic_store_explicit(&run->slot_use[slot], GD_SLOT_TAKEN, memory_order_relaxed);
}

static void queue(struct gd_run *run, struct gd_submission *submission) {
    gd_fault_reach(GD_FAULT_SUBMISSION_QUEUED);
    *run->queue_tail = submission;
    run->queue_tail = &submission->next;
    run->queued++;
    run->queued_bytes += submission->bytes;
    if (submission->kind == GD_SUBMISSION_CLOSE)
        set_phase(run, GD_RUN_CLOSING);
}

int gd_run_submit_consume(struct gd_run *run, struct gd_submission *submission, struct gd_error *ret_error) {
    int result = gd_run_accept(run, submission, ret_error);
    if (result < 0) {
        free(submission);
        return result;
    }
    run->received_sequence = submission->sequence;
    if (submission->kind == GD_SUBMISSION_SNAPSHOT) {
        run->received_step = submission->step;
        if (submission->applied)
            run->received_optimizer_step = submission->optimizer_step;
        if (submission->delivery == GD_IN_SLOT)
            take_slot(run, submission->slot);
        gd_run_sides_take(run, submission);
    }
    if (submission->kind == GD_SUBMISSION_START) {
        run->received_starts |= UINT64_C(1) << submission->start;
        if (submission->start < GD_STATE_ARRAYS_MAX)
            run->received_optimizer_step = submission->optimizer_step;
        else
            gd_run_sides_take_start(run, gd_start_side(submission->start));
    }
    if (submission->delivery == GD_IN_SLOT)
        queue(run, submission);
    else
        run->arriving = submission;
    return 0;
}

uint8_t *gd_run_arriving_elements(struct gd_run *run, uint64_t *ret_bytes) {
    if (run->arriving->kind == GD_SUBMISSION_START) {
        *ret_bytes = run->open_run->elements * sizeof(float);
        return (uint8_t *)gd_memory_second_moment(&run->memory, 0, 1, run->arriving->start);
    }
    for (uint32_t slot = 0; slot < run->layout.slots; slot++) {
        if (atomic_load_explicit(&run->slot_use[slot], memory_order_acquire) != GD_SLOT_FREE)
            continue;
        take_slot(run, slot);
        run->arriving->slot = slot;
        *ret_bytes = run->open_run->elements * gd_element_bytes(run->open_run->element_type);
        return gd_memory_slot(&run->memory, slot);
    }
    return NULL;
}

void gd_run_queue_arrived(struct gd_run *run) {
    struct gd_submission *submission = run->arriving;
    run->arriving = NULL;
    if (run->phase == GD_RUN_ACTIVE)
        queue(run, submission);
    else
        free(submission);
}

bool gd_run_is_full(const struct gd_run *run) {
    return run->queued >= GD_RUN_QUEUE_MAX || run->queued_bytes >= GD_RUN_QUEUE_BYTES_MAX;
}

void gd_run_stop(struct gd_run *run, bool leaving) {
    if (run->phase == GD_RUN_ACTIVE)
        set_phase(run, leaving ? GD_RUN_LEAVING : GD_RUN_CLOSING);
}

enum gd_run_next gd_run_next(const struct gd_run *run) {
    if (run->working || run->phase == GD_RUN_LAID_OUT || run->phase == GD_RUN_ENDED)
        return GD_RUN_WAIT;
    uint64_t unwritten = run->appended_bytes - gd_event_file_written(run->file);
    if (unwritten + run->layout.step_records_max > run->layout.outbox_bytes)
        return GD_RUN_WAIT;
    if (run->queue_head)
        return GD_RUN_BEGIN;
    return run->phase == GD_RUN_ACTIVE ? GD_RUN_WAIT : GD_RUN_END;
}

static struct gd_history history_of(struct gd_run *run) {
    return (struct gd_history){
        .slots = run->state->slots,
        .n_slots = run->layout.slots,
        .lags = run->open_run->max_lag,
        .stride = run->open_run->stride,
        .first_step = run->open_run->first_step,
        .pinned = UINT32_MAX,
    };
}

// Returns true when the start vectors of the optimiser's state are all there, and become the state.
static bool take_start(struct gd_run *run, const struct gd_submission *start) {
    uint64_t arrays = run->open_run->starts & ((UINT32_C(1) << GD_STATE_ARRAYS_MAX) - 1);
    run->state->starts |= UINT64_C(1) << start->start;
    if (start->start >= GD_STATE_ARRAYS_MAX) {
        gd_run_sides_start(run, gd_start_side(start->start), start->sequence);
        return false;
    }
    gd_adam_start(&run->state->adam, start->optimizer_step);
    if ((run->state->starts & arrays) != arrays)
        return false;
    gd_analysis_begin_start(run->analysis, &run->input);
    return true;
}

bool gd_run_is_light(const struct gd_run *run) {
    // A step's work, counted in elements read once by vector kernels, a tenth of a nanosecond: some 50 us. To wake a
    // thread and to be told of its end takes 20 and more, twice a switch of this thread's own.
    const uint64_t light_max = 512 << 10, group_elements = 4096, group_lag_elements = 256, quantity_elements = 512;
    const struct gd_open_run *open_run = run->open_run;
    uint64_t rules = 1 + open_run->n_shadows;
    uint64_t side_work = 0;
    for (enum gd_side side = 0; side < GD_SIDES; side++)
        side_work += open_run->sides[side].elements;
    if (open_run->elements > light_max || side_work > light_max)
        return false;
    uint64_t quantities = (uint64_t)__builtin_popcountll(gd_open_run_quantities(open_run));
    uint64_t work = open_run->elements * (open_run->max_lag + 2) +
                    open_run->n_groups * (group_elements + open_run->max_lag * group_lag_elements);
    work += side_work * (open_run->max_lag + 2);
    return rules * work + open_run->series.n_series * quantities * quantity_elements <= light_max;
}

uint32_t gd_run_begin(struct gd_run *run, uint32_t parts_max) {
    struct gd_submission *submission = run->queue_head;
    assert(submission && !run->working);
    run->queue_head = submission->next;
    if (!run->queue_head)
        run->queue_tail = &run->queue_head;
    run->queued--;
    run->queued_bytes -= submission->bytes;
    run->working = submission;

    run->input = (struct gd_analysis_input){.snapshot = submission, .state = run->state};
    run->analyses = submission->kind == GD_SUBMISSION_SNAPSHOT;
    if (submission->kind == GD_SUBMISSION_START)
        run->analyses = take_start(run, submission);
    if (submission->kind == GD_SUBMISSION_SNAPSHOT) {
        struct gd_history history = history_of(run);
        run->input.known_lags = gd_history_find(&history, submission->step, run->input.lag_slot);
        gd_run_sides_begin(run, submission);
        gd_analysis_begin(run->analysis, &run->input);
    }
    return run->analyses ? gd_analysis_parts(run->analysis, parts_max) : 1;
}

void gd_run_work(struct gd_run *run, uint32_t part, uint32_t parts) {
    if (run->analyses)
        gd_analysis_run(run->analysis, part, parts);
    if (run->analyses && run->side_input.present)
        gd_side_analysis_run(run->side_analysis, &run->side_input, part, parts);
}

static void turn_history(struct gd_run *run, const struct gd_submission *snapshot) {
    struct gd_history history = history_of(run);
    uint32_t left[GD_SLOTS_MAX];
    uint32_t n_left = gd_history_turn(&history, snapshot->slot, snapshot->step, snapshot->sequence, left);
    for (uint32_t i = 0; i < n_left; i++)
        atomic_store_explicit(&run->slot_use[left[i]], GD_SLOT_FREE, memory_order_release);
}

bool gd_run_commit(struct gd_run *run) {
    const struct gd_submission *submission = run->working;
    size_t bytes = 0;

    run->state->sequence = submission->sequence;
    switch (submission->kind) {
    case GD_SUBMISSION_SNAPSHOT: {
        struct gd_analysis_result result;
        gd_analysis_end(run->analysis, &result);
        gd_fault_reach(GD_FAULT_ANALYSED);
        bytes = gd_run_records_snapshot(run, submission, &result);
        turn_history(run, submission);
        break;
    }
    case GD_SUBMISSION_START: // no record tells of it
        break;
    case GD_SUBMISSION_SCALARS:
        bytes = gd_run_records_scalars(run, submission);
        break;
    case GD_SUBMISSION_CLOSE:
        bytes = gd_run_records_end(run, submission);
        break;
    }
    return commit(run, bytes);
}

void gd_run_finish(struct gd_run *run, struct gd_submission_pool *pool) {
    gd_submission_free(pool, run->working);
    run->working = NULL;
}

void gd_run_end(struct gd_run *run) {
    if (run->phase == GD_RUN_CLOSING && !run->state->ended)
        commit(run, gd_run_records_end(run, NULL));
    gd_fault_reach(GD_FAULT_END_COMMITTED);
    set_phase(run, GD_RUN_ENDED);
    gd_event_file_finish(run->file);
}
