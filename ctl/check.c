// gradientctl check: whether event files are whole.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arena.h"
#include "command.h"
#include "event_check.h"
#include "json.h"
#include "record.h"
#include "tag_bytes.h"

struct options {
    bool growing; // a file may end inside a record
    bool json;
};

// One file while it is checked.
struct file_check {
    struct gd_faults faults;
    struct gd_event_check events;
    struct gd_record_reader reader;
    struct gd_arena *arena; // borrowed
    int end;                // how the reading ended: a gd_record_result or a negative errno
};

static void check_event(struct file_check *file, uint64_t offset, const uint8_t *data, size_t bytes) {
    gd_arena_reset(file->arena);
    const Tensorboard__Event *event = tensorboard__event__unpack(&file->arena->allocator, bytes, data);
    if (!event && file->arena->exhausted)
        gd_faults_add(&file->faults, offset, "the event takes more than %d bytes to unpack", GD_EVENT_MEMORY_BYTES_MAX);
    else if (!event)
        gd_faults_add(&file->faults, offset, "the record's %zu bytes are no event: protobuf cannot parse them", bytes);
    else if (gd_tag_bytes_have_zero(data, bytes))
        gd_faults_add(&file->faults, offset, "a tag has a zero byte, which is a control character");
    gd_event_check_record(&file->events, offset, event);
}

// Checks one record. Returns GD_RECORD_READ when another one may follow, also after damage whose end is known.
static int check_record(struct file_check *file) {
    const uint8_t *data;
    size_t bytes;
    uint64_t offset = file->reader.offset;

    int result = gd_record_read(&file->reader, &data, &bytes);
    if (result == GD_RECORD_READ)
        check_event(file, offset, data, bytes);
    if (result != GD_RECORD_DAMAGED)
        return result;
    gd_faults_add(&file->faults, offset, "%s: it is %" PRIu64 ", %s %" PRIu64, file->reader.reason, file->reader.value,
                  file->reader.limit_name, file->reader.limit);
    if (!gd_record_skip_damaged(&file->reader))
        return GD_RECORD_DAMAGED;
    gd_event_check_record(&file->events, offset, NULL);
    return GD_RECORD_READ;
}

static void check_records(struct file_check *file, const struct options *options) {
    while ((file->end = check_record(file)) == GD_RECORD_READ)
        ;

    uint64_t offset = file->reader.offset;
    if (options->growing)
        return;
    if (file->end == GD_RECORD_TORN)
        gd_faults_add(&file->faults, offset,
                      "the file ends inside a record at offset %" PRIu64 " (--growing: as one being written does)",
                      offset);
    if (file->end == GD_RECORD_END && file->events.n_records == 0)
        gd_faults_add(&file->faults, offset, "the file has no record, the first must be a file_version");
}

static void print_state(const struct file_check *file) {
    if (file->faults.n > 0)
        printf("%" PRIu64 " fault%s\n", file->faults.n, file->faults.n == 1 ? "" : "s");
    else if (file->end == GD_RECORD_TORN)
        printf("ends inside a record at offset %" PRIu64 "\n", file->reader.offset);
    else
        puts(file->end == GD_RECORD_END ? "whole" : "not read to its end");
}

static void print_summary(const struct file_check *file) {
    const struct gd_event_check *events = &file->events;
    const char *path = file->faults.path;

    if (file->faults.n > GD_FAULTS_SHOWN_MAX)
        printf("%s: and %" PRIu64 " more\n", path, file->faults.n - GD_FAULTS_SHOWN_MAX);
    if (events->n_fallen > 0)
        printf("%s: note: steps that are not above their tag's last one: %" PRIu64 ", the first at offset %" PRIu64
               "\n",
               path, events->n_fallen, events->fallen_offset);
    printf("%s: %" PRIu64 " records, %zu tags, ", path, events->n_records, events->tags.n_tags);
    if (events->has_steps)
        printf("steps %" PRId64 " to %" PRId64 ", ", events->step_min, events->step_max);
    else
        fputs("no steps, ", stdout);
    print_state(file);
}

static void print_json_start(const char *path) {
    fputs("{\"file\":", stdout);
    gd_json_print_text(path);
    fputs(",\"faults\":[", stdout);
}

// After the array of faults.
static void print_json_end(const struct file_check *file) {
    const struct gd_event_check *events = &file->events;
    printf("],\"n_faults\":%" PRIu64 ",\"records\":%" PRIu64 ",\"tags\":%zu", file->faults.n, events->n_records,
           events->tags.n_tags);
    if (events->has_steps)
        printf(",\"first_step\":%" PRId64 ",\"last_step\":%" PRId64, events->step_min, events->step_max);
    else
        fputs(",\"first_step\":null,\"last_step\":null", stdout);
    printf(",\"steps_not_rising\":%" PRIu64 ",\"torn_at\":", events->n_fallen);
    if (file->end == GD_RECORD_TORN)
        printf("%" PRIu64, file->reader.offset);
    else
        fputs("null", stdout);
    printf(",\"whole\":%s}\n", file->end == GD_RECORD_END && file->faults.n == 0 ? "true" : "false");
}

static int check_stream(const char *path, FILE *stream, struct gd_arena *arena, const struct options *options) {
    struct file_check file = {.faults = {.path = path, .json = options->json}, .arena = arena};
    gd_event_check_init(&file.events, &file.faults);
    gd_record_reader_init(&file.reader, stream);

    if (options->json)
        print_json_start(path);
    check_records(&file, options);
    if (options->json)
        print_json_end(&file);
    else
        print_summary(&file);

    int status = file.faults.n > 0 ? GD_EXIT_DAMAGE : GD_EXIT_DONE;
    if (file.end < 0) {
        fprintf(stderr, "gradientctl: %s: cannot be read at offset %" PRIu64 ": %s\n", path, file.reader.offset,
                strerror(-file.end));
        status = GD_EXIT_USAGE;
    }
    gd_record_reader_deinit(&file.reader);
    gd_event_check_deinit(&file.events);
    return status;
}

static int check_file(const char *path, struct gd_arena *arena, const struct options *options) {
    FILE *stream = fopen(path, "rbe");
    if (!stream) {
        fprintf(stderr, "gradientctl: %s: %s\n", path, strerror(errno));
        return GD_EXIT_USAGE;
    }
    int status = check_stream(path, stream, arena, options);
    fclose(stream);
    return status;
}

static int check_files(int n_files, char **paths, const struct options *options) {
    struct gd_arena arena;
    if (gd_arena_init(&arena, GD_EVENT_MEMORY_BYTES_MAX) < 0) {
        fprintf(stderr, "gradientctl: no memory: %d bytes are needed to unpack events\n", GD_EVENT_MEMORY_BYTES_MAX);
        return GD_EXIT_USAGE;
    }
    int status = GD_EXIT_DONE;
    for (int i = 0; i < n_files; i++) {
        int file_status = check_file(paths[i], &arena, options);
        status = file_status > status ? file_status : status;
    }
    gd_arena_deinit(&arena);
    return status;
}

int gd_check_run(const struct gd_command *command, int n_arguments, char **arguments) {
    struct options options = {0};
    for (; n_arguments > 0 && arguments[0][0] == '-'; n_arguments--, arguments++) {
        if (strcmp(arguments[0], "--growing") == 0)
            options.growing = true;
        else if (strcmp(arguments[0], "--json") == 0)
            options.json = true;
        else
            return gd_command_usage_error(command, "unknown option ", arguments[0]);
    }
    if (n_arguments == 0)
        return gd_command_usage_error(command, "at least one FILE is needed", "");

    int status = check_files(n_arguments, arguments, &options);
    int flush_status = gd_command_flush();
    return flush_status > status ? flush_status : status;
}
