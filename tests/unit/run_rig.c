#include "run_rig.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crc32c.h"
#include "record.h"
#include "support.h"

static const uint64_t numel[GROUPS] = {5, 40, 3};

struct gd_run *run;
int memory_fd, event_fd;
struct gd_error error;
const char *state_directory;
static sem_t notified;

static void notify(void *context) {
    sem_post(context);
}

static void wait_notified(void) {
    while (sem_wait(&notified) < 0 && errno == EINTR)
        ;
}

struct gd_open_run *small_open_run(void) {
    struct gd_open_run *open_run = new_open_run(numel, GROUPS);
    open_run->max_lag = 2;
    open_run->inflight = 1;
    return open_run;
}

void new_run(struct gd_open_run *open_run) {
    sem_init(&notified, 0, 0);
    cr_assert_eq(gd_run_new_consume(open_run, &run), 0);
    memory_fd = new_memfd(run->layout.total_bytes, needed_seals);
    event_fd = new_file(O_RDWR);
}

int attach(void) {
    struct gd_charge fds = {0};
    struct gd_run_attachment attachment = {
        .memory_fd = dup(memory_fd),
        .event_fd = state_directory ? -1 : dup(event_fd),
        .state_directory = state_directory,
        .admin_group = (gid_t)-1,
        .fds = &fds,
        .uid = geteuid(),
        .kernels = &gd_kernels_scalar,
        .notify = notify,
        .notify_context = &notified,
    };
    int result = gd_run_attach(run, &attachment, &error);
    for (int accepted = 0; result == 0 && accepted <= 0;) { // as the server learns it from its writer
        accepted = gd_event_file_is_accepted(run->file, &error);
        result = accepted < 0 ? accepted : 0;
        sched_yield();
    }
    return result;
}

void start(struct gd_open_run *open_run) {
    new_run(open_run);
    cr_assert_eq(attach(), 0, "%s", error.text);
}

void start_small(void) {
    start(small_open_run());
}

void free_run(void) {
    if (run->file) {
        if (run->phase == GD_RUN_ACTIVE)
            gd_run_stop(run, true);
        while (run->phase != GD_RUN_ENDED) {
            enum gd_run_next next = gd_run_next(run);
            if (next == GD_RUN_END)
                gd_run_end(run);
            else if (next == GD_RUN_WAIT)
                wait_notified();
            else {
                gd_run_begin(run, 1);
                gd_run_work(run, 0, 1);
                gd_run_commit(run);
                gd_run_finish(run, NULL);
            }
        }
        while (!gd_event_file_is_done(run->file))
            wait_notified();
    }
    gd_run_free(run);
    close(memory_fd);
    close(event_fd);
}

void sign_image(uint8_t *image, const struct gd_layout *layout, int half) {
    struct gd_memory_header *header = (void *)(image + layout->header_offset[half]);
    const struct gd_run_state *state = (const void *)(image + layout->state_offset[half]);
    if (state->user_tags <= GRADIENTD_USER_TAGS_MAX)
        header->state_checksum = gd_crc32c(0, state, gd_run_state_used_bytes(state, layout->state_bytes));
    header->checksum = gd_crc32c(gd_crc32c(0, header, offsetof(struct gd_memory_header, checksum)), &header->sequence,
                                 sizeof(header->sequence));
}

struct block *new_block(enum gd_submission_kind kind, uint64_t sequence, int64_t step) {
    struct block *block = calloc(1, sizeof(*block));
    cr_assert_not_null(block);
    block->submission = (struct gd_submission){
        .kind = kind,
        .sequence = sequence,
        .step = step,
        .wall_time = 1700000000.0 + (double)step,
        .scalars = block->scalars,
        .rates = block->rates,
        .squared_norms = block->squared_norms,
    };
    return block;
}

struct block *new_snapshot(uint64_t sequence, int64_t step, uint32_t slot) {
    struct block *block = new_block(GD_SUBMISSION_SNAPSHOT, sequence, step);
    block->submission.applied = true;
    block->submission.clip_factor = 1.0;
    block->submission.slot = slot;
    block->submission.n_rates = 1;
    block->rates[0] = (struct gd_adam_rates){0.01, (double)NAN, (double)NAN};
    return block;
}

void add_squared_norm(struct block *block, double batch_size, double value, const double *per_group) {
    uint32_t i = block->submission.n_squared_norms++;
    block->squared_norms[i] =
        (struct gd_squared_norm){batch_size, value, block->group_norms[i], per_group ? GROUPS : 0};
    if (per_group)
        memcpy(block->group_norms[i], per_group, sizeof(block->group_norms[i]));
}

void add_scalar(struct block *block, const char *tag, float value) {
    uint32_t i = block->submission.n_scalars++;
    snprintf(block->tags[i], sizeof(block->tags[i]), "%s", tag);
    block->scalars[i] = (struct gd_user_scalar){.tag = block->tags[i], .value = value};
}

int submit(struct block *block) {
    if (run->received_step < 0 && block->submission.kind == GD_SUBMISSION_SNAPSHOT)
        run->open_run->first_step = block->submission.step; // what a trainer says that begins there
    error = (struct gd_error){.field = "", .text = ""};
    return gd_run_submit_consume(run, &block->submission, &error);
}

void submit_good(struct block *block) {
    uint64_t sequence = block->submission.sequence;
    cr_assert_eq(submit(block), 0, "submission %" PRIu64 ": %s", sequence, error.text);
}

void fill_slot(uint32_t slot, float value) {
    float *elements = gd_memory_slot(&run->memory, slot);
    for (uint64_t i = 0; i < run->open_run->elements; i++)
        elements[i] = value;
}

int work(void) {
    int committed = 0;
    for (;;) {
        enum gd_run_next next = gd_run_next(run);
        if (next == GD_RUN_WAIT && run->queued > 0)
            wait_notified(); // the outbox is full
        else if (next == GD_RUN_BEGIN) {
            uint32_t parts = gd_run_begin(run, 3);
            for (uint32_t part = 0; part < parts; part++)
                gd_run_work(run, part, parts);
            gd_run_commit(run);
            gd_run_finish(run, NULL);
            committed++;
        } else
            return committed;
    }
}

void submit_close(uint64_t sequence) {
    submit_good(new_block(GD_SUBMISSION_CLOSE, sequence, 0));
}

Tensorboard__Event *events[EVENTS_MAX], *tensors[EVENTS_MAX];
size_t n_events, n_tensors;

static bool is_tensor(const Tensorboard__Event *event) {
    return event->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY &&
           event->summary->value[0]->value_case == TENSORBOARD__SUMMARY__VALUE__VALUE_TENSOR;
}

static void keep_event(Tensorboard__Event *event) {
    bool apart = is_tensor(event);
    size_t *count = apart ? &n_tensors : &n_events;
    cr_assert(*count < EVENTS_MAX);
    (apart ? tensors : events)[(*count)++] = event;
}

void read_events(void) {
    work();
    if (gd_run_next(run) == GD_RUN_END)
        gd_run_end(run);
    cr_assert_eq(run->phase, GD_RUN_ENDED);
    while (!gd_event_file_is_done(run->file))
        wait_notified();

    FILE *stream = fdopen(dup(event_fd), "r");
    cr_assert_not_null(stream);
    rewind(stream);
    struct gd_record_reader reader;
    const uint8_t *data;
    size_t bytes;
    int result;
    gd_record_reader_init(&reader, stream);
    while ((result = gd_record_read(&reader, &data, &bytes)) == GD_RECORD_READ) {
        Tensorboard__Event *event = tensorboard__event__unpack(NULL, bytes, data);
        cr_assert_not_null(event, "event %zu", n_events);
        keep_event(event);
    }
    cr_assert_eq(result, GD_RECORD_END);
    gd_record_reader_deinit(&reader);
    fclose(stream);
}

void free_events(void) {
    for (size_t i = 0; i < n_events; i++)
        tensorboard__event__free_unpacked(events[i], NULL);
    for (size_t i = 0; i < n_tensors; i++)
        tensorboard__event__free_unpacked(tensors[i], NULL);
    n_events = n_tensors = 0;
}

const Tensorboard__Summary__Value *value_in(const Tensorboard__Event *event, const char *tag) {
    for (size_t i = 0; event->what_case == TENSORBOARD__EVENT__WHAT_SUMMARY && i < event->summary->n_value; i++)
        if (strcmp(event->summary->value[i]->tag, tag) == 0)
            return event->summary->value[i];
    return NULL;
}

const Tensorboard__Summary__Value *tensor_at(const char *tag, int64_t step) {
    for (size_t i = 0; i < n_tensors; i++)
        if (strcmp(tensors[i]->summary->value[0]->tag, tag) == 0 && (step < 0 || tensors[i]->step == step))
            return tensors[i]->summary->value[0];
    return NULL;
}

size_t count_values(const char *tag, int64_t *ret_last_step, float *ret_last) {
    size_t n = 0;
    for (size_t i = 0; i < n_events; i++) {
        const Tensorboard__Summary__Value *value = value_in(events[i], tag);
        if (!value)
            continue;
        n++;
        if (ret_last_step)
            *ret_last_step = events[i]->step;
        if (ret_last)
            *ret_last = value->simple_value;
    }
    return n;
}

size_t count_session_logs(Tensorboard__SessionLog__Status status) {
    size_t n = 0;
    for (size_t i = 0; i < n_events; i++)
        n += events[i]->what_case == TENSORBOARD__EVENT__WHAT_SESSION_LOG && events[i]->session_log->status == status;
    return n;
}
