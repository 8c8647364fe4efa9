#include "recorder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"

int gd_recorder_init(struct gd_recorder *recorder, const char *path, int level, bool force) {
    *recorder = (struct gd_recorder){.path = path, .level = level, .force = force};
    return gd_recording_writer_new(path, level, force, &recorder->first);
}

static struct gd_run_recording *find(struct gd_recorder *recorder, const struct gd_memory_id *id) {
    struct gd_run_recording *recording = recorder->recordings;
    while (recording &&
           (id->inode == 0 || recording->memory.id.inode != id->inode || recording->memory.id.device != id->device))
        recording = recording->next;
    return recording;
}

static char *path_of(const struct gd_recorder *recorder, unsigned number) {
    char *path = NULL;
    if (number == 1)
        return strdup(recorder->path);
    return asprintf(&path, "%s.%u", recorder->path, number) < 0 ? NULL : path;
}

static int open_writer(struct gd_recorder *recorder, const char *path, struct gd_recording_writer **ret_writer) {
    if (!recorder->first)
        return gd_recording_writer_new(path, recorder->level, recorder->force, ret_writer);
    *ret_writer = recorder->first;
    recorder->first = NULL;
    return 0;
}

static void lose(struct gd_recorder *recorder, const char *path, const char *reason) {
    fprintf(stderr, "gradientctl record: %s: a run is not recorded: %s\n", path, reason);
    recorder->lost = true;
}

void gd_recorder_lose(struct gd_recorder *recorder, const char *reason) {
    lose(recorder, recorder->path, reason);
}

// A device or a pipe that was chosen to be written stays.
static void remove_empty_consume(struct gd_recording_writer *writer, const char *path) {
    struct stat status;
    int result = gd_recording_writer_close(writer);
    if (result == 0 && lstat(path, &status) == 0 && S_ISREG(status.st_mode))
        unlink(path);
}

// Takes over the path; opening and memory where it succeeds.
static struct gd_run_recording *begin_consume(struct gd_recorder *recorder, char *path, struct gd_opening *opening,
                                              struct gd_memory_view *memory) {
    struct gd_recording_writer *writer = NULL;
    int result = open_writer(recorder, path, &writer);
    if (result < 0) {
        lose(recorder, path, result == -EEXIST ? "the file exists; --force replaces it" : strerror(-result));
        free(path);
        return NULL;
    }
    struct gd_run_recording *recording = gd_run_recording_new_consume(path, writer, opening, memory);
    if (!recording) {
        remove_empty_consume(writer, path);
        lose(recorder, path, strerror(ENOMEM));
        free(path);
        return NULL;
    }
    recording->next = recorder->recordings;
    recorder->recordings = recording;
    return recording;
}

// In the next file: where that cannot be had, the run after this one has another.
static struct gd_run_recording *begin(struct gd_recorder *recorder, struct gd_opening *opening,
                                      struct gd_memory_view *memory) {
    char *path = path_of(recorder, recorder->n_files + 1);
    if (!path) {
        gd_recorder_lose(recorder, strerror(ENOMEM));
        return NULL;
    }
    recorder->n_files++;
    return begin_consume(recorder, path, opening, memory);
}

struct gd_run_recording *gd_recorder_attach(struct gd_recorder *recorder, struct gd_opening *opening,
                                            struct gd_memory_view *memory, uint64_t committed_sequence) {
    struct gd_run_recording *recording = find(recorder, &memory->id);
    if (recording)
        return recording;
    recording = begin(recorder, opening, memory);
    if (recording && committed_sequence > 0)
        gd_run_recording_fail(recording, "the run has %" PRIu64 " messages from before", committed_sequence);
    return recording;
}

static void print_json(const struct gd_run_recording *recording) {
    fputs("{\"file\":", stdout);
    gd_json_print_text(recording->path);
    fputs(",\"run\":", stdout);
    gd_json_print_text(recording->opening.open_run->run);
    printf(",\"snapshots\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"outcome\":", recording->snapshots,
           recording->sequence);
    gd_json_print_text(gd_recorded_outcome_name(recording->outcome));
    printf(",\"whole\":%s", recording->fault[0] == '\0' ? "true" : "false");
    if (recording->fault[0] != '\0') {
        fputs(",\"fault\":", stdout);
        gd_json_print_text(recording->fault);
    }
    puts("}");
}

static void print_line(const struct gd_run_recording *recording) {
    const char *run = recording->opening.open_run->run;
    fprintf(stderr, "gradientctl record: %s: run %s, %" PRIu64 " snapshots, %s, %s\n", recording->path,
            *run ? run : ".", recording->snapshots, gd_recorded_outcome_name(recording->outcome),
            recording->fault[0] == '\0' ? "whole" : "not whole");
}

// Those that were begun first come first.
static struct gd_run_recording *turn(struct gd_run_recording *recording) {
    struct gd_run_recording *turned = NULL;
    while (recording) {
        struct gd_run_recording *next = recording->next;
        recording->next = turned;
        turned = recording;
        recording = next;
    }
    return turned;
}

bool gd_recorder_finish(struct gd_recorder *recorder, bool json) {
    bool whole = recorder->recordings && !recorder->lost;
    if (recorder->first) {
        remove_empty_consume(recorder->first, recorder->path);
        recorder->first = NULL;
        fprintf(stderr,
                "gradientctl record: %s: nothing was recorded: no run came to the daemon "
                "(one that a trainer starts for itself is not seen)\n",
                recorder->path);
    }
    struct gd_run_recording *recording = turn(recorder->recordings);
    while (recording) {
        struct gd_run_recording *next = recording->next;
        gd_run_recording_close(recording);
        (json ? print_json : print_line)(recording);
        whole = whole && recording->fault[0] == '\0';
        gd_run_recording_free(recording);
        recording = next;
    }
    recorder->recordings = NULL;
    return whole;
}
