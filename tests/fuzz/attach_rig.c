#include "attach_rig.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clear_user_tags.h"
#include "crc32c.h"
#include "run_resume.h"

enum {
    EVENT_FD = 1 << 20,  // no descriptor: event_sink.c knows none
    TAGS_KEPT = 16,      // user tags an input can reach
    REGION_UNIT = 8,     // bytes
    FIELD_ALIGNMENT = 8, // of the state's parts
};

// ---- One mapping for all attachments, in place of the kernel's work for each: 60 us, the analysis of a step takes 5.
// -

static uint8_t *standing_mapping;

void *__real_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *address, size_t bytes);
int __wrap_munmap(void *address, size_t bytes);

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (standing_mapping && flags & MAP_SHARED && fd >= 0)
        return standing_mapping;
    return __real_mmap64(address, bytes, protection, flags, fd, offset);
}

int __wrap_munmap(void *address, size_t bytes) {
    return address == standing_mapping ? 0 : __real_munmap(address, bytes);
}

// ---- What is put back -----------------------------------------------------------------------------------------------

struct span {
    uint64_t offset, bytes;
};

enum { SPANS_MAX = 2 + GD_RULES_MAX * 2 * GD_STATE_ARRAYS_MAX + GD_SLOTS_MAX };

// All that the daemon reads, but for the outbox, which it only writes.
static uint32_t list_spans(const struct attach_rig *rig, struct span spans[static SPANS_MAX]) {
    const struct gd_layout *layout = &rig->laid_out.layout;
    uint64_t slot_bytes = rig->run->open_run->elements * sizeof(float);
    uint32_t n = 0;

    spans[n++] = (struct span){0, layout->user_tags_offset + TAGS_KEPT * (GRADIENTD_NAME_BYTES_MAX + 1)};
    spans[n++] = (struct span){layout->event_name_offset, layout->outbox_offset - layout->event_name_offset};
    for (uint32_t rule = 0; rule <= rig->run->open_run->n_shadows; rule++)
        for (uint32_t half = 0; half < 2; half++)
            for (uint32_t array = 0; array < layout->state_arrays[rule]; array++)
                spans[n++] =
                    (struct span){layout->second_moment_offset[rule][half][array], layout->second_moment_bytes};
    for (uint32_t slot = 0; slot < layout->slots; slot++)
        spans[n++] = (struct span){layout->slots_offset + slot * layout->slot_stride_bytes, slot_bytes};
    return n;
}

void attach_rig_load(struct attach_rig *rig, enum attach_image image) {
    struct span spans[SPANS_MAX];
    const uint8_t *from = rig->images[image];
    uint32_t n = list_spans(rig, spans);
    for (uint32_t i = 0; i < n; from += spans[i++].bytes)
        memcpy(rig->base + spans[i].offset, from, spans[i].bytes);
}

void attach_rig_keep(struct attach_rig *rig, enum attach_image image) {
    struct span spans[SPANS_MAX];
    uint8_t *to = rig->images[image];
    uint32_t n = list_spans(rig, spans);
    for (uint32_t i = 0; i < n; to += spans[i++].bytes)
        memcpy(to, rig->base + spans[i].offset, spans[i].bytes);
}

// ---- The run --------------------------------------------------------------------------------------------------------

static void make_memory(struct attach_rig *rig) {
    uint64_t bytes = rig->laid_out.layout.total_bytes;
    rig->memory_fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool made = rig->memory_fd >= 0 && ftruncate(rig->memory_fd, (off_t)bytes) == 0 &&
                fallocate(rig->memory_fd, 0, 0, (off_t)bytes) == 0 &&
                fcntl(rig->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
    assert(made);
    void *base = __real_mmap64(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memory_fd, 0);
    assert(base != MAP_FAILED);
    rig->base = base;
}

void attach_rig_init(struct attach_rig *rig, int open_run) {
    struct span spans[SPANS_MAX];
    uint64_t image_bytes = 0;

    *rig = (struct attach_rig){.memory_fd = -1};
    int made = gd_run_new_consume(open_runs_read(open_run), &rig->run);
    assert(made == 0);
    memcpy(&rig->laid_out, rig->run, sizeof(rig->laid_out));
    rig->state = malloc(rig->laid_out.layout.state_bytes);
    rig->scratch = malloc(rig->laid_out.layout.state_bytes);
    assert(rig->state && rig->scratch);
    memcpy(rig->state, rig->run->state, rig->laid_out.layout.state_bytes);
    make_memory(rig);
    uint32_t n = list_spans(rig, spans);
    for (uint32_t i = 0; i < n; i++)
        image_bytes += spans[i].bytes;
    for (int image = 0; image < IMAGES; image++) {
        rig->images[image] = calloc(1, image_bytes);
        assert(rig->images[image]);
    }
}

void attach_rig_forget_run(struct attach_rig *rig) {
    struct gd_run *run = rig->run;
    while (run->queue_head) {
        struct gd_submission *submission = run->queue_head;
        run->queue_head = submission->next;
        free(submission);
    }
    gd_event_file_free(run->file);
    gd_analysis_free(run->analysis);
    gd_side_analysis_free(run->side_analysis);
    standing_mapping = rig->base;
    gd_memory_deinit(&run->memory);
    clear_user_tags(run->user_tags);

    struct gd_run_state *state = run->state; // a resumed run has another one
    memcpy(run, &rig->laid_out, sizeof(*run));
    memcpy(state, rig->state, run->layout.state_bytes);
    run->state = state;
}

static void notify(void *context) {
    (void)context;
}

int attach_rig_attach(struct attach_rig *rig, bool has_event_file, struct gd_error *ret_error) {
    struct gd_charge fds = {0};
    struct gd_run_attachment attachment = {
        .memory_fd = dup(rig->memory_fd),
        .event_fd = has_event_file ? EVENT_FD : -1,
        .fds = &fds,
        .uid = geteuid(),
        .kernels = &gd_kernels_scalar,
        .notify = notify,
    };
    standing_mapping = rig->base;
    int result = gd_run_attach(rig->run, &attachment, ret_error);
    if (result == 0)
        result = gd_event_file_is_accepted(rig->run->file, ret_error);
    return result < 0 ? result : 0;
}

// ---- What a trainer can change --------------------------------------------------------------------------------------

static uint64_t offset_in_state(const struct attach_rig *rig, const void *field) {
    return (uint64_t)((const uint8_t *)field - (const uint8_t *)rig->state);
}

// From `from` up to `to`, in the state at `state_offset`.
static struct span between(const struct attach_rig *rig, uint64_t state_offset, const void *from, const void *to) {
    return (struct span){state_offset + offset_in_state(rig, from),
                         offset_in_state(rig, to) - offset_in_state(rig, from)};
}

static struct span state_span(const struct attach_rig *rig, enum attach_region region, uint64_t at) {
    const struct gd_open_run *open_run = rig->run->open_run;
    struct gd_run_state *state = rig->state;
    const struct gd_group_state *groups = gd_run_state_groups(state);
    const struct gd_adam_rates *rates = gd_run_state_rates(state, open_run->n_groups);
    const struct gd_shadow_state *shadows = gd_run_state_shadows(state, open_run);
    const struct gd_series_state *series = gd_run_state_series(state, open_run);
    const int64_t *steps = gd_run_state_user_tag_steps(state, open_run);

    switch (region) {
    case REGION_ADAM:
        return between(rig, at, &state->adam, &state->health);
    case REGION_VALUES:
        return between(rig, at, &state->health, state->described);
    case REGION_DESCRIBED:
        return between(rig, at, state->described, state->slots);
    case REGION_HISTORY:
        return between(rig, at, state->slots, state->slots + rig->laid_out.layout.slots);
    case REGION_GROUPS:
        return between(rig, at, groups, rates);
    case REGION_RATES:
        return between(rig, at, rates, shadows);
    case REGION_SHADOWS:
        return between(rig, at, shadows, series);
    case REGION_SERIES:
        return between(rig, at, series, steps);
    case REGION_TAG_STEPS:
        return between(rig, at, steps, steps + TAGS_KEPT);
    default:
        return between(rig, at, state, &state->adam);
    }
}

static struct span region_span(const struct attach_rig *rig, enum attach_region region, uint32_t half) {
    const struct gd_layout *layout = &rig->laid_out.layout;
    uint64_t words = layout->waiting_offset;
    switch (region) {
    case REGION_HEADER:
        return (struct span){layout->header_offset[half], sizeof(struct gd_memory_header)};
    case REGION_WORDS:
        return (struct span){words, layout->slot_words_offset + layout->slots * sizeof(uint64_t) - words};
    case REGION_TAGS:
        return (struct span){layout->user_tags_offset, TAGS_KEPT * (GRADIENTD_NAME_BYTES_MAX + 1)};
    case REGION_EVENT_NAME:
        return (struct span){layout->event_name_offset, GD_EVENT_NAME_BYTES};
    case REGION_NORMS: // of groups, then the sums of slots
        return (struct span){layout->group_norms_offset, layout->slot_sums_offset +
                                                             layout->slots * layout->slot_sums_bytes -
                                                             layout->group_norms_offset};
    case REGION_SECOND_MOMENTS:
        return (struct span){layout->second_moment_offset[0][half][0],
                             layout->state_arrays[0] > 0 ? layout->second_moment_bytes : 0};
    case REGION_SLOTS:
        return (struct span){layout->slots_offset + half * layout->slot_stride_bytes,
                             rig->run->open_run->elements * sizeof(float)};
    default:
        return state_span(rig, region, layout->state_offset[half]);
    }
}

uint8_t *attach_rig_find(const struct attach_rig *rig, enum attach_region region, uint32_t half, uint32_t unit,
                         size_t *bytes) {
    struct span span = region_span(rig, region, half);
    if (span.bytes == 0) { // a run without shadows, series or second moments
        *bytes = 0;
        return NULL;
    }
    uint64_t at = (uint64_t)unit * REGION_UNIT % span.bytes;
    if (*bytes > span.bytes - at)
        *bytes = span.bytes - at;
    return rig->base + span.offset + at;
}

void attach_rig_sign(struct attach_rig *rig, uint32_t half, bool all) {
    const struct gd_layout *layout = &rig->laid_out.layout;
    struct gd_memory_header *header = (void *)(rig->base + layout->header_offset[half]);
    const struct gd_run_state *state = (const void *)(rig->base + layout->state_offset[half]);
    const struct gd_memory_header *signed_one = (const void *)rig->images[IMAGE_NEW]; // at offset 0 of span 0

    header->magic = signed_one->magic;
    if (all) {
        header->layout_version = signed_one->layout_version;
        header->total_bytes = signed_one->total_bytes;
        header->open_run_digest = signed_one->open_run_digest;
        header->sequence = state->sequence;
    }
    if (state->user_tags <= GRADIENTD_USER_TAGS_MAX)
        header->state_checksum = gd_crc32c(0, state, gd_run_state_used_bytes(state, layout->state_bytes));
    header->checksum = gd_crc32c(gd_crc32c(0, header, offsetof(struct gd_memory_header, checksum)), &header->sequence,
                                 sizeof(header->sequence));
}
