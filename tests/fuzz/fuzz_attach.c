// Memory as a hostile trainer may attach it, and a run that goes on from there. The input is
//     u8 flags, u8 OpenRun, u8 image, u8 patches, the patches, submissions
// where a patch is  u8 region (its highest bit: the half), u8 place, u8 length, bytes  and a submission begins with a
// u8 of `enum op`.
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attach_rig.h"
#include "event_sink.h"
#include "fuzz.h"
#include "text.h"

enum {
    SIGNS = 1 << 0,          // the checksums of what is patched are made right ...
    SIGNS_ALL = 1 << 1,      // ... and the headers' other fields too
    HAS_EVENT_FILE = 1 << 2, // the trainer brings it
    WRITES = 1 << 3,         // what is appended is written at once
    LEAVES = 1 << 4,         // the daemon stops in the end, not the trainer

    PATCHES_MAX = 8,
    PATCH_BYTES_MAX = 64,
    OPS_MAX = 8, // keeps an input quick
    TAGS = 4,
    RATES = 2,
    UPPER_HALF = 0x80,
    QUEUES = 0x80, // of an op: is not worked on yet
};

enum op { OP_STEP, OP_SNAPSHOT, OP_SCALARS, OP_START, OP_CLOSE, OP_PATCH, OP_RESTART, OP_WRITE, OPS };

struct input {
    const uint8_t *data;
    size_t bytes;
};

// A submission with what it points to in its block, as decode makes it.
struct block {
    struct gd_submission submission;
    struct gd_adam_rates rates[RATES];
    struct gd_user_scalar scalars[TAGS];
    uint8_t present[2];
};

static struct attach_rig rigs[OPEN_RUNS_LAST + 1];
static uint8_t flags;
static bool spoilt; // the memory was changed behind the daemon's back

// 0 where the input has ended.
static uint8_t take(struct input *input) {
    if (input->bytes == 0)
        return 0;
    input->bytes--;
    return *input->data++;
}

// Small numbers, and each power of two.
static uint64_t take_wide(struct input *input) {
    uint8_t value = take(input);
    return value < 192 ? value : UINT64_C(1) << (value - 192);
}

static double take_number(struct input *input) {
    static const double numbers[] = {0.0, 1e-3, 0.5, 1.0 - 0x1p-53, 1e-8, 1.7e308, 5e-324, 0.999};
    return numbers[take(input) % (sizeof(numbers) / sizeof(numbers[0]))];
}

static void check_refusal(int result, const struct gd_error *error) {
    assert(result == -EBADMSG && error->field);
    assert(strlen(error->text) > 0 && gd_text_is_clean(error->text, strlen(error->text)));
}

// ---- What must hold between submissions -----------------------------------------------------------------------------

static uint64_t word_at(const struct attach_rig *rig, uint64_t offset) {
    uint64_t word;
    memcpy(&word, rig->base + offset, sizeof(word));
    return word;
}

static void check_slots(const struct attach_rig *rig) {
    const struct gd_run *run = rig->run;
    uint32_t n_free = 0;
    for (uint32_t i = 0; i < run->layout.slots; i++) {
        const struct gd_slot_state *slot = &run->state->slots[i];
        bool is_free = run->slot_use[i] == GD_SLOT_FREE;
        n_free += is_free;
        assert(run->queued > 0 || is_free == !slot->in_use);
        assert(!slot->in_use || (slot->step <= run->state->step && slot->sequence <= run->state->sequence));
        if (is_free && !spoilt && slot->sequence <= run->state->sequence)
            assert(word_at(rig, run->layout.slot_words_offset + i * sizeof(uint64_t)) >= slot->sequence);
    }
    assert(n_free > 0 || run->queued > 0);
}

static void check_run(const struct attach_rig *rig) {
    const struct gd_run *run = rig->run;
    uint64_t pending = run->appended_bytes - gd_event_file_written(run->file);
    assert(pending <= run->layout.outbox_bytes);
    assert(run->received_sequence == run->state->sequence + run->queued);
    assert(run->state->step >= -1 && isfinite(run->state->wall_time));
    assert(run->state->user_tags <= GRADIENTD_USER_TAGS_MAX);
    assert(spoilt || word_at(rig, run->layout.commits_offset) == run->state->sequence);
    check_slots(rig);
}

// What the last commit left in the memory is what the daemon has.
static void check_memory(const struct attach_rig *rig) {
    const struct gd_run *run = rig->run;
    struct gd_memory_restored restored;
    struct gd_error error;
    int result = gd_memory_restore(&run->memory, run->open_run->digest, rig->scratch, &restored, &error);
    assert(result == GD_MEMORY_RESUMES);
    assert(restored.appended_bytes == run->appended_bytes);
    assert(restored.written_bytes == gd_event_file_written(run->file));
    uint64_t used = gd_run_state_used_bytes(run->state, run->layout.state_bytes);
    assert(memcmp(rig->scratch, run->state, used) == 0);
}

// ---- Submissions ----------------------------------------------------------------------------------------------------

static void work(struct attach_rig *rig) {
    struct gd_run *run = rig->run;
    for (enum gd_run_next next; (next = gd_run_next(run)) != GD_RUN_END;) {
        if (next == GD_RUN_WAIT && !run->queue_head)
            return;
        if (next == GD_RUN_WAIT) {
            event_sink_write(run->file); // the outbox was full
            assert(gd_run_next(run) == GD_RUN_BEGIN);
        }
        uint64_t sequence = run->queue_head->sequence;
        uint32_t parts = gd_run_begin(run, 2);
        for (uint32_t part = 0; part < parts; part++)
            gd_run_work(run, part, parts);
        gd_run_commit(run);
        gd_run_finish(run, NULL);
        assert(run->state->sequence == sequence);
        if (flags & WRITES)
            event_sink_write(run->file);
        check_run(rig);
    }
}

static struct block *new_block(const struct gd_run *run, enum gd_submission_kind kind) {
    struct block *block = (struct block *)gd_submission_new(NULL, sizeof(*block));
    assert(block);
    block->submission.kind = kind;
    block->submission.sequence = run->received_sequence + 1;
    block->submission.wall_time = 1.7e9;
    block->submission.scalars = block->scalars;
    block->submission.rates = block->rates;
    return block;
}

// Returns whether the run took it. A trainer that sends what is refused is heard no more.
static bool submit(struct attach_rig *rig, struct block *block) {
    struct gd_error error = {.field = NULL};
    int result = gd_run_submit_consume(rig->run, &block->submission, &error);
    if (result < 0) {
        check_refusal(result, &error);
        gd_run_stop(rig->run, false);
    }
    return result == 0;
}

static void add_scalars(struct block *block, uint8_t choice) {
    static const char *const tags[TAGS] = {"train/loss", "b", "\xe2\x88\x87", "validation/loss"};
    for (uint32_t i = 0; i < TAGS; i++)
        if (choice >> i & 1)
            block->scalars[block->submission.n_scalars++] = (struct gd_user_scalar){tags[i], (float)i, 0};
}

static uint32_t free_slot(const struct gd_run *run) {
    uint32_t slot = 0;
    while (slot + 1 < run->layout.slots && run->slot_use[slot] != GD_SLOT_FREE)
        slot++;
    return slot;
}

static uint32_t free_side_slot(const struct gd_run *run, enum gd_side side) {
    uint32_t slot = 0;
    while (slot + 1 < run->layout.sides[side].slots && run->side_slot_use[side][slot] != GD_SLOT_FREE)
        slot++;
    return slot;
}

// Streams beside the gradient: bits 0 to 2 of `choice`, in slots that are free; bit 3: in one that may not be.
static void add_sides(const struct gd_run *run, uint8_t choice, struct gd_submission *snapshot) {
    for (enum gd_side side = 0; side < GD_SIDES; side++) {
        if (!(choice >> side & 1))
            continue;
        snapshot->sides |= UINT32_C(1) << side;
        snapshot->side_slot[side] = choice & 8 ? choice >> 4 : free_side_slot(run, side);
    }
}

// The next step as a trainer sends it.
static struct block *new_step(const struct gd_run *run) {
    struct block *block = new_block(run, GD_SUBMISSION_SNAPSHOT);
    int64_t last = run->received_step;
    block->submission.step = last < 0 ? run->open_run->first_step : last < INT64_MAX ? last + 1 : last;
    block->submission.slot = free_slot(run);
    block->submission.applied = true;
    block->submission.n_rates = RATES;
    for (int i = 0; i < RATES; i++)
        block->rates[i] = (struct gd_adam_rates){0.01, (double)NAN, (double)NAN};
    return block;
}

static struct block *take_snapshot(const struct gd_run *run, struct input *input) {
    struct block *block = new_step(run);
    struct gd_submission *snapshot = &block->submission;
    uint8_t options = take(input);
    uint64_t rise = take_wide(input);

    snapshot->applied = options & 1;
    if (gd_open_run_sides_before(run->open_run, GD_SIDES) > 0)
        add_sides(run, take(input), snapshot);
    if (options & 2)
        snapshot->slot = take(input) % (run->layout.slots + 1);
    if (options & 4) {
        snapshot->has_optimizer_step = true;
        snapshot->optimizer_step = run->received_optimizer_step + take_wide(input);
    }
    if (options & 8) {
        block->present[0] = take(input);
        snapshot->groups_present = block->present;
        snapshot->groups_present_bytes = 1 + (options >> 7);
    }
    if (options & 16)
        block->rates[0] = (struct gd_adam_rates){-take_number(input), take_number(input), take_number(input)};
    if (options & 32)
        snapshot->skipped = take_wide(input);
    if (options & 64)
        add_scalars(block, take(input));
    snapshot->step = (int64_t)(((uint64_t)snapshot->step + rise) & INT64_MAX);
    if (block->rates[0].beta2 >= 1.0)
        block->rates[0].beta2 = 0.5;
    return block;
}

static struct block *take_scalars(const struct gd_run *run, struct input *input) {
    struct block *block = new_block(run, GD_SUBMISSION_SCALARS);
    add_scalars(block, take(input));
    block->submission.step = (int64_t)(take_wide(input) & INT64_MAX);
    return block;
}

static struct block *take_start(const struct gd_run *run, struct input *input) {
    struct block *block = new_block(run, GD_SUBMISSION_START);
    block->submission.start = take(input) % GD_STARTS;
    block->submission.has_optimizer_step = true;
    block->submission.optimizer_step = take_wide(input);
    return block;
}

static struct block *take_close(const struct gd_run *run, struct input *input) {
    struct block *block = new_block(run, GD_SUBMISSION_CLOSE);
    uint8_t options = take(input);
    block->submission.step = options & 1 ? (int64_t)(take_wide(input) & INT64_MAX) : -1;
    block->submission.has_optimizer_step = options & 2;
    block->submission.optimizer_step = take_wide(input);
    block->submission.skipped = options;
    return block;
}

// ---- The input ------------------------------------------------------------------------------------------------------

// Returns which halves of headers and state it touched, a bit each.
static uint32_t take_patch(struct attach_rig *rig, struct input *input) {
    uint8_t region = take(input), unit = take(input);
    uint32_t half = region & UPPER_HALF ? 1 : 0;
    size_t bytes = 1 + take(input) % PATCH_BYTES_MAX;
    if (bytes > input->bytes)
        bytes = input->bytes;
    uint8_t *place = attach_rig_find(rig, region % UPPER_HALF % REGIONS, half, unit, &bytes);
    if (bytes > 0)
        memcpy(place, input->data, bytes);
    input->data += bytes;
    input->bytes -= bytes;
    return UINT32_C(1) << half;
}

static void take_patches(struct attach_rig *rig, struct input *input) {
    uint32_t touched = 0, n_patches = take(input) % (PATCHES_MAX + 1);
    for (uint32_t i = 0; i < n_patches; i++)
        touched |= take_patch(rig, input);
    for (uint32_t half = 0; half < 2 && flags & (SIGNS | SIGNS_ALL); half++)
        if (touched >> half & 1)
            attach_rig_sign(rig, half, flags & SIGNS_ALL);
}

// The daemon dies with all that it had accepted and not committed, and another one takes over. Returns whether it
// could.
static bool restart(struct attach_rig *rig) {
    struct gd_error error = {.field = NULL};
    if (!spoilt)
        check_memory(rig);
    attach_rig_forget_run(rig);
    int result = attach_rig_attach(rig, flags & HAS_EVENT_FILE, &error);
    if (result < 0)
        check_refusal(result, &error);
    if (result < 0 && !spoilt) {
        fprintf(stderr, "what the daemon left is refused: %s\n", error.text);
        abort();
    }
    return result == 0;
}

// Returns false where the run is no more.
static bool take_op(struct attach_rig *rig, struct input *input) {
    struct gd_run *run = rig->run;
    uint8_t op = take(input);
    switch ((enum op)(op % QUEUES % OPS)) {
    case OP_STEP:
        submit(rig, new_step(run));
        break;
    case OP_SNAPSHOT:
        submit(rig, take_snapshot(run, input));
        break;
    case OP_SCALARS:
        submit(rig, take_scalars(run, input));
        break;
    case OP_START:
        submit(rig, take_start(run, input));
        break;
    case OP_CLOSE:
        submit(rig, take_close(run, input));
        break;
    case OP_PATCH:
        spoilt = true;
        take_patch(rig, input);
        break;
    case OP_RESTART:
        return restart(rig);
    default:
        event_sink_write(run->file);
    }
    if (!(op & QUEUES))
        work(rig);
    return true;
}

static void end(struct attach_rig *rig) {
    struct gd_run *run = rig->run;
    gd_run_stop(run, flags & LEAVES);
    work(rig);
    if (gd_run_next(run) == GD_RUN_WAIT)
        event_sink_write(run->file);
    assert(gd_run_next(run) == GD_RUN_END);
    gd_run_end(run);
    assert(run->phase == GD_RUN_ENDED && event_sink_is_finished(run->file));
    if (!spoilt)
        check_memory(rig);
}

// ---- Images ---------------------------------------------------------------------------------------------------------

static void submit_good(struct attach_rig *rig, struct block *block) {
    bool accepted = submit(rig, block);
    assert(accepted);
    work(rig);
}

static void start_vectors(struct attach_rig *rig) {
    for (uint32_t array = 0; array < rig->run->layout.start_arrays; array++) {
        struct block *block = new_block(rig->run, GD_SUBMISSION_START);
        block->submission.start = array;
        block->submission.optimizer_step = 100;
        submit_good(rig, block);
    }
}

static void some_steps(struct attach_rig *rig) {
    for (int i = 0; i < 9; i++) {
        struct block *block = new_step(rig->run);
        float *elements = gd_memory_slot(&rig->run->memory, block->submission.slot);
        for (uint64_t element = 0; element < rig->run->open_run->elements; element++)
            elements[element] = (float)(i + 1) / (float)(element + 1);
        block->submission.has_optimizer_step = i == 0;
        block->submission.optimizer_step = 101;
        add_scalars(block, i % 2 == 0 ? 3 : 0);
        submit_good(rig, block);
    }
}

static void last_step(struct attach_rig *rig) {
    struct block *block = new_step(rig->run);
    block->submission.step = INT64_MAX;
    block->submission.has_optimizer_step = true;
    block->submission.optimizer_step = UINT64_MAX;
    submit_good(rig, block);
}

static void make_images(int open_run) {
    struct attach_rig *rig = &rigs[open_run];
    struct gd_error error;
    attach_rig_init(rig, open_run);
    spoilt = false;
    int attached = attach_rig_attach(rig, true, &error);
    assert(attached == 0);
    attach_rig_keep(rig, IMAGE_NEW);
    start_vectors(rig);
    some_steps(rig);
    attach_rig_keep(rig, IMAGE_RUNNING);
    last_step(rig);
    attach_rig_keep(rig, IMAGE_LAST_STEP);
    submit_good(rig, new_block(rig->run, GD_SUBMISSION_CLOSE));
    attach_rig_keep(rig, IMAGE_ENDED);
    attach_rig_forget_run(rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct input input = {data, bytes};
    struct gd_error error = {.field = NULL};
    flags = take(&input);
    int open_run = OPEN_RUNS_FIRST + take(&input) % (OPEN_RUNS_LAST - OPEN_RUNS_FIRST + 1);
    struct attach_rig *rig = &rigs[open_run];
    if (!rig->run)
        make_images(open_run);

    spoilt = false;
    attach_rig_load(rig, take(&input) % IMAGES);
    take_patches(rig, &input);
    int result = attach_rig_attach(rig, flags & HAS_EVENT_FILE, &error);
    bool goes_on = result == 0;
    if (goes_on)
        check_run(rig);
    else
        check_refusal(result, &error);
    for (int i = 0; goes_on && input.bytes > 0 && i < OPS_MAX; i++)
        goes_on = take_op(rig, &input);
    if (goes_on)
        end(rig);
    attach_rig_forget_run(rig);
    return 0;
}
