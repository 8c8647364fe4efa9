#include "run_recording.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "element_places.h"

void gd_opening_deinit(struct gd_opening *opening) {
    free(opening->message);
    free(opening->payload);
    gd_open_run_free(opening->open_run);
    *opening = (struct gd_opening){0};
}

int gd_memory_view_init(struct gd_memory_view *view, int fd) {
    struct gd_error error;
    struct stat status;
    *view = (struct gd_memory_view){0};
    int result = gd_memory_identify(fd, &view->id, &error); // sealed: it stays as long as it is
    if (result < 0)
        return result;
    if (fstat(fd, &status) < 0)
        return -errno;
    void *base = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    view->base = base;
    view->bytes = (uint64_t)status.st_size;
    return 0;
}

void gd_memory_view_deinit(struct gd_memory_view *view) {
    union { // munmap() takes what nobody may write to as well
        const uint8_t *base;
        void *address;
    } pointer = {.base = view->base};
    if (view->base)
        munmap(pointer.address, view->bytes);
    *view = (struct gd_memory_view){0};
}

void gd_run_recording_fail(struct gd_run_recording *recording, const char *format, ...) {
    va_list arguments;
    if (recording->fault[0] != '\0')
        return;
    va_start(arguments, format);
    vsnprintf(recording->fault, sizeof(recording->fault), format, arguments);
    va_end(arguments);
    fprintf(stderr, "gradientctl record: %s: not recorded from here on: %s\n", recording->path, recording->fault);
}

static void check_failure(struct gd_run_recording *recording, int failure) {
    if (failure == -E2BIG)
        gd_run_recording_fail(recording, "a step has more elements than a record can hold, %d bytes",
                              GD_RECORDED_BYTES_MAX);
    else if (failure == -ETIMEDOUT)
        gd_run_recording_fail(recording, "the file system does not answer");
    else if (failure < 0)
        gd_run_recording_fail(recording, "%s", strerror(-failure));
}

static void add(struct gd_run_recording *recording, const struct gd_recorded *recorded) {
    check_failure(recording, gd_recording_writer_add(recording->writer, recorded));
}

static struct gd_recorded_bytes bytes_of(const char *text) {
    return (struct gd_recorded_bytes){(const uint8_t *)text, strlen(text)};
}

static void add_start(struct gd_run_recording *recording) {
    const struct gd_opening *opening = &recording->opening;
    add(recording, &(struct gd_recorded){.kind = GD_RECORDED_RECORDING,
                                         .format = GD_RECORDING_FORMAT,
                                         .text = bytes_of("gradientd " GD_VERSION)});
    add(recording, &(struct gd_recorded){
                       .kind = GD_RECORDED_OPEN_RUN,
                       .message = {opening->message, opening->message_bytes},
                       .payload = {opening->payload, opening->payload_bytes},
                       .inline_elements = recording->memory.base == NULL,
                   });
}

struct gd_run_recording *gd_run_recording_new_consume(char *path, struct gd_recording_writer *writer,
                                                      struct gd_opening *opening, struct gd_memory_view *memory) {
    struct gd_run_recording *recording = calloc(1, sizeof(*recording));
    if (!recording)
        return NULL;
    recording->path = path;
    recording->writer = writer;
    recording->opening = *opening;
    recording->memory = *memory;
    *opening = (struct gd_opening){0};
    *memory = (struct gd_memory_view){0};
    add_start(recording);
    if (recording->memory.base && recording->memory.bytes != recording->opening.layout.total_bytes)
        gd_run_recording_fail(recording, "the daemon is of another version and lays the run's memory out differently");
    return recording;
}

static void point_to_elements(struct gd_run_recording *recording, const struct gd_submission *submission,
                              struct gd_recorded *recorded) {
    struct gd_element_place places[GD_ELEMENT_PLACES_MAX];
    const struct gd_opening *opening = &recording->opening;
    if (!recording->memory.base)
        return;
    int n_places = gd_element_places(opening->open_run, &opening->layout, submission, places);
    for (int i = 0; i < n_places; i++)
        recorded->elements[places[i].stream] =
            (struct gd_recorded_elements){{recording->memory.base + places[i].offset, places[i].bytes}, places[i].type};
}

static const enum gd_recorded_kind kinds[] = {
    [GD_SUBMISSION_SNAPSHOT] = GD_RECORDED_SNAPSHOT,
    [GD_SUBMISSION_START] = GD_RECORDED_START_VECTOR,
    [GD_SUBMISSION_SCALARS] = GD_RECORDED_SCALARS,
    [GD_SUBMISSION_CLOSE] = GD_RECORDED_CLOSE_RUN,
};

void gd_run_recording_take(struct gd_run_recording *recording, const struct gd_submission *submission,
                           struct gd_recorded_bytes message, struct gd_recorded_bytes payload) {
    if (recording->ended || recording->fault[0] != '\0' || submission->sequence <= recording->sequence)
        return;
    if (submission->sequence != recording->sequence + 1) {
        gd_run_recording_fail(recording, "message %" PRIu64 " came after message %" PRIu64, submission->sequence,
                              recording->sequence);
        return;
    }
    bool has_step = submission->kind != GD_SUBMISSION_START && submission->step >= 0;
    struct gd_recorded recorded = {
        .kind = kinds[submission->kind],
        .message = message,
        .payload = payload,
        .has_step = has_step,
        .step = has_step ? submission->step : 0,
    };
    point_to_elements(recording, submission, &recorded);
    add(recording, &recorded);
    recording->sequence = submission->sequence;
    recording->snapshots += submission->kind == GD_SUBMISSION_SNAPSHOT;
    if (submission->kind == GD_SUBMISSION_CLOSE)
        recording->close_sequence = submission->sequence;
}

void gd_run_recording_end(struct gd_run_recording *recording, enum gd_recorded_outcome outcome, const char *text) {
    if (recording->ended)
        return;
    recording->ended = true;
    recording->outcome = outcome;
    if (recording->fault[0] == '\0') {
        struct gd_recorded end = {.kind = GD_RECORDED_END, .outcome = outcome};
        if (text)
            end.text = bytes_of(text);
        add(recording, &end);
    }
    gd_recording_writer_finish(recording->writer);
    struct gd_memory_id id = recording->memory.id;
    gd_memory_view_deinit(&recording->memory); // its pages are the job's, and go when nobody maps them
    recording->memory.id = id;
}

void gd_run_recording_close(struct gd_run_recording *recording) {
    gd_run_recording_end(recording, GD_RECORDED_LEFT, NULL);
    if (recording->writer)
        check_failure(recording, gd_recording_writer_close(recording->writer));
    recording->writer = NULL;
}

void gd_run_recording_free(struct gd_run_recording *recording) {
    if (!recording)
        return;
    gd_run_recording_close(recording);
    gd_opening_deinit(&recording->opening);
    free(recording->path);
    free(recording);
}
