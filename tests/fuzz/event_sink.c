#include "event_sink.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check_records.h"
#include "foreign_fd.h"

struct gd_event_file {
    struct gd_event_file_options options;
    uint64_t appended_bytes, written_bytes;
    bool finished;
};

int gd_event_file_new(const struct gd_event_file_options *options, struct gd_event_file **ret_file) {
    struct gd_event_file *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    *file = (struct gd_event_file){.options = *options,
                                   .appended_bytes = options->appended_bytes,
                                   .written_bytes = options->written_bytes};
    *options->written_word = options->written_bytes;
    *ret_file = file;
    return 0;
}

// No file is larger than its offsets go.
int gd_event_file_is_accepted(struct gd_event_file *file, struct gd_error *ret_error) {
    if (file->written_bytes <= INT64_MAX)
        return 1;
    return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file",
                        "event_file has less bytes than the run has written");
}

static void copy(const struct gd_event_file *file, uint64_t offset, uint8_t *to, uint64_t bytes) {
    uint64_t at = offset % file->options.outbox_bytes, until_end = file->options.outbox_bytes - at;
    uint64_t first = bytes < until_end ? bytes : until_end;
    memcpy(to, file->options.outbox + at, first);
    memcpy(to + first, file->options.outbox, bytes - first);
}

static void check_appended(const struct gd_event_file *file, uint64_t appended_bytes) {
    uint64_t bytes = appended_bytes - file->appended_bytes;
    uint8_t *records = malloc(bytes + 1);
    assert(records);
    copy(file, file->appended_bytes, records, bytes);
    check_records(records, bytes);
    free(records);
}

void gd_event_file_append(struct gd_event_file *file, uint64_t appended_bytes) {
    assert(!file->finished && appended_bytes >= file->appended_bytes);
    assert(appended_bytes - file->written_bytes <= file->options.outbox_bytes);
    check_appended(file, appended_bytes);
    file->appended_bytes = appended_bytes;
}

uint64_t gd_event_file_written(struct gd_event_file *file) {
    return file->written_bytes;
}

void event_sink_write(struct gd_event_file *file) {
    file->written_bytes = file->appended_bytes;
    *file->options.written_word = file->written_bytes;
}

void gd_event_file_finish(struct gd_event_file *file) {
    event_sink_write(file);
    file->finished = true;
}

bool event_sink_is_finished(const struct gd_event_file *file) {
    return file->finished;
}

const char *gd_event_file_path(const struct gd_event_file *file) {
    (void)file;
    return NULL;
}

void gd_event_file_free(struct gd_event_file *file) {
    free(file);
}

// No descriptor comes with an attachment here.
void gd_foreign_fd_close(int fd, struct gd_charge *charge) {
    (void)fd;
    (void)charge;
}
