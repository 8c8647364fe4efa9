#include "replay_run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "decode.h"
#include "element_places.h"
#include "foreign_fd.h"
#include "payload.h"

// A file system that takes nothing for so long is given up, as at a daemon's end.
static const uint64_t WRITE_TIMEOUT_NS = UINT64_C(10000000000);

int gd_replay_init(struct gd_replay *replay, const struct gd_kernels *kernels, uint32_t workers, uint64_t memory_max) {
    *replay = (struct gd_replay){.kernels = kernels, .workers = workers, .memory_max = memory_max};
    sem_init(&replay->written, 0, 0);
    return gd_arena_init(&replay->arena, GD_DECODE_ARENA_BYTES);
}

// On the writer's thread.
static void on_written(void *context) {
    struct gd_replay *replay = context;
    sem_post(&replay->written);
}

static bool is_spoken_for(const struct gd_run *run) {
    struct gd_error error;
    return gd_event_file_is_accepted(run->file, &error) != 0;
}

static bool can_go_on(const struct gd_run *run) {
    return gd_run_next(run) != GD_RUN_WAIT;
}

static bool is_written(const struct gd_run *run) {
    return gd_event_file_is_done(run->file);
}

// Waits until the writer tells of something, or for a while.
static void wait_for_writer(struct gd_replay *replay) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += 1;
    sem_clockwait(&replay->written, CLOCK_MONOTONIC, &until);
}

void gd_replay_deinit(struct gd_replay *replay) {
    struct gd_event_file *file = replay->run ? replay->run->file : NULL;
    if (file)
        gd_event_file_abandon(file);
    while (file && !gd_event_file_is_done(file))
        wait_for_writer(replay);
    gd_run_free(replay->run);
    replay->run = NULL;
    gd_arena_deinit(&replay->arena);
    sem_destroy(&replay->written);
}

// Waits until the writer has done enough. Returns 0, or -ETIMEDOUT when nothing is written for too long.
static int wait_until(struct gd_replay *replay, bool (*enough)(const struct gd_run *)) {
    const struct gd_run *run = replay->run;
    uint64_t written = gd_event_file_written(run->file), idle_since_ns = uv_hrtime();
    while (!enough(run)) {
        wait_for_writer(replay);
        uint64_t now_written = gd_event_file_written(run->file);
        if (now_written != written)
            idle_since_ns = uv_hrtime();
        else if (uv_hrtime() - idle_since_ns >= WRITE_TIMEOUT_NS)
            return -ETIMEDOUT;
        written = now_written;
    }
    return 0;
}

static struct gd_frame frame_of(const struct gd_recorded *recorded) {
    return (struct gd_frame){
        .message = recorded->message.data,
        .message_bytes = (uint32_t)recorded->message.bytes, // a record's are below 2^31
        .payload_bytes = (uint32_t)recorded->payload.bytes,
    };
}

static int wrong(struct gd_error *ret_error, const char *what) {
    return gd_error_set(ret_error, GD_ERROR_INVALID, "recording", "%s", what);
}

int gd_replay_decode_open_run(struct gd_replay *replay, const struct gd_recorded *recorded,
                              struct gd_open_run **ret_open_run, struct gd_error *ret_error) {
    struct gd_frame frame = frame_of(recorded);
    static const uint8_t none[1] = {0};
    struct gd_decoded decoded;
    int result = gd_decode(&frame, &replay->arena, NULL, &decoded, ret_error);
    if (result < 0)
        return result;
    if (decoded.kind != GD_CLIENT_OPEN_RUN) {
        if (decoded.kind == GD_CLIENT_SUBMISSION)
            free(decoded.submission);
        return wrong(ret_error, "its message is not the OpenRun that it is said to be");
    }
    const uint8_t *table = recorded->payload.data ? recorded->payload.data : none;
    result = gd_open_run_read_table(decoded.open_run, table, recorded->payload.bytes, ret_error);
    if (result < 0) {
        gd_open_run_free(decoded.open_run);
        return result;
    }
    *ret_open_run = decoded.open_run;
    return 0;
}

// Memory as a trainer makes it. Returns its descriptor or a negative errno.
static int make_memory(uint64_t bytes) {
    int fd = memfd_create("gradientctl-replay", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int result = bytes > INT64_MAX ? EFBIG : posix_fallocate(fd, 0, (off_t)bytes);
    if (result == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    result = result != 0 ? -result : -errno;
    close(fd);
    return result;
}

static int check_size(const struct gd_replay *replay, struct gd_error *ret_error) {
    const struct gd_run *run = replay->run;
    uint64_t takes = run->layout.total_bytes + gd_run_own_bytes(run->open_run, &run->layout);
    if (takes <= replay->memory_max)
        return 0;
    return gd_error_set(ret_error, GD_ERROR_QUOTA, "memory", "the run takes %llu bytes of memory, there are %llu",
                        (unsigned long long)takes, (unsigned long long)replay->memory_max);
}

static int attach_consume(struct gd_replay *replay, bool takes_inline, int event_fd, struct gd_error *ret_error) {
    struct gd_charge fds = {0};
    int result = check_size(replay, ret_error);
    int memory_fd = result < 0 || takes_inline ? -1 : make_memory(replay->run->layout.total_bytes);
    if (result == 0 && memory_fd < 0 && !takes_inline)
        result = memory_fd;
    if (result < 0) {
        close(event_fd);
        return result;
    }
    const struct gd_run_attachment attachment = {
        .memory_fd = memory_fd,
        .event_fd = event_fd,
        .fds = &fds,
        .uid = getuid(),
        .pid = getpid(),
        .kernels = replay->kernels,
        .notify = on_written,
        .notify_context = replay,
    };
    return gd_run_attach(replay->run, &attachment, ret_error);
}

int gd_replay_open_consume(struct gd_replay *replay, struct gd_open_run *open_run, bool takes_inline, int event_fd,
                           struct gd_error *ret_error) {
    int accepted = gd_run_new_consume(open_run, &replay->run);
    if (accepted < 0) {
        gd_open_run_free(open_run);
        close(event_fd);
        return accepted;
    }
    int result = attach_consume(replay, takes_inline, event_fd, ret_error);
    if (result == 0)
        result = wait_until(replay, is_spoken_for);
    if (result == 0)
        accepted = gd_event_file_is_accepted(replay->run->file, ret_error);
    return accepted < 0 ? accepted : result;
}

// ---- commits

struct part {
    struct gd_run *run;
    uint32_t index;
    uint32_t n_parts;
    pthread_t thread;
    bool elsewhere; // on that thread
};

static void *work(void *context) {
    struct part *part = context;
    gd_run_work(part->run, part->index, part->n_parts);
    return NULL;
}

// Does the parts of a submission's work, each on a thread of its own where there are several: they are heavy then.
static void work_all(struct gd_run *run, uint32_t n_parts) {
    struct part parts[GD_REPLAY_WORKERS_MAX];
    for (uint32_t i = 0; i < n_parts; i++) {
        parts[i] = (struct part){.run = run, .index = i, .n_parts = n_parts};
        parts[i].elsewhere = i > 0 && pthread_create(&parts[i].thread, NULL, work, &parts[i]) == 0;
    }
    for (uint32_t i = 0; i < n_parts; i++)
        if (!parts[i].elsewhere)
            work(&parts[i]);
    for (uint32_t i = 0; i < n_parts; i++)
        if (parts[i].elsewhere)
            pthread_join(parts[i].thread, NULL);
}

// Commits all that is queued. Returns 0 or -ETIMEDOUT.
static int commit_all(struct gd_replay *replay) {
    struct gd_run *run = replay->run;
    while (run->queue_head) {
        if (wait_until(replay, can_go_on) < 0)
            return -ETIMEDOUT;
        work_all(run, gd_run_begin(run, replay->workers));
        (void)gd_run_commit(run);
        gd_run_finish(run, NULL);
    }
    return 0;
}

// ---- submissions

// Whether a record has just the elements of the places.
static int check_elements(const struct gd_recorded *recorded, const struct gd_element_place *places, int n_places,
                          struct gd_error *ret_error) {
    int n_elements = 0;
    for (int stream = 0; stream < GD_RECORDED_STREAMS; stream++)
        n_elements += recorded->elements[stream].bytes.data != NULL;
    if (n_elements != n_places)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "streams", "it has elements of %d streams, its message of %d",
                            n_elements, n_places);
    for (int i = 0; i < n_places; i++) {
        const struct gd_recorded_elements *elements = &recorded->elements[places[i].stream];
        const char *name = gd_recorded_stream_name(places[i].stream);
        if (!elements->bytes.data || elements->type != places[i].type)
            return gd_error_set(ret_error, GD_ERROR_INVALID, name, "%s has no elements of the run's type", name);
        if (elements->bytes.bytes != places[i].bytes)
            return gd_error_set(ret_error, GD_ERROR_INVALID, name, "%s has %zu bytes, the run's elements take %llu",
                                name, elements->bytes.bytes, (unsigned long long)places[i].bytes);
    }
    return 0;
}

// Elements that came in the payload, of the submission that is arriving.
static int take_payload(struct gd_run *run, const struct gd_recorded *recorded, struct gd_error *ret_error) {
    struct gd_payload payload;
    uint64_t bytes;
    uint8_t *elements = gd_run_arriving_elements(run, &bytes); // all before is committed: a slot is free
    if (!elements)
        return wrong(ret_error, "there is no slot for its elements");
    int result = gd_payload_init(&payload, elements, bytes, run->arriving->inline_bytes,
                                 run->arriving->delivery == GD_INLINE_DEFLATED, ret_error);
    if (result == 0 && recorded->payload.bytes > 0)
        result = gd_payload_take(&payload, recorded->payload.data, recorded->payload.bytes, ret_error);
    gd_payload_deinit(&payload);
    if (result == 0)
        gd_run_queue_arrived(run);
    return result;
}

static const enum gd_submission_kind kinds[GD_RECORDED_KINDS] = {
    [GD_RECORDED_START_VECTOR] = GD_SUBMISSION_START,
    [GD_RECORDED_SNAPSHOT] = GD_SUBMISSION_SNAPSHOT,
    [GD_RECORDED_SCALARS] = GD_SUBMISSION_SCALARS,
    [GD_RECORDED_CLOSE_RUN] = GD_SUBMISSION_CLOSE,
};

static int decode_submission(struct gd_replay *replay, const struct gd_recorded *recorded,
                             struct gd_submission **ret_submission, struct gd_error *ret_error) {
    struct gd_frame frame = frame_of(recorded);
    struct gd_decoded decoded;
    int result = gd_decode(&frame, &replay->arena, NULL, &decoded, ret_error);
    if (result < 0)
        return result;
    if (decoded.kind == GD_CLIENT_SUBMISSION && decoded.submission->kind == kinds[recorded->kind]) {
        *ret_submission = decoded.submission;
        return 0;
    }
    if (decoded.kind == GD_CLIENT_SUBMISSION)
        free(decoded.submission);
    if (decoded.kind == GD_CLIENT_OPEN_RUN)
        gd_open_run_free(decoded.open_run);
    return gd_error_set(ret_error, GD_ERROR_INVALID, "message", "its message is not the %s that it is said to be",
                        gd_recorded_kind_name(recorded->kind));
}

// Hands a submission to the run, with its elements.
static int submit_consume(struct gd_replay *replay, struct gd_submission *submission,
                          const struct gd_recorded *recorded, struct gd_error *ret_error) {
    struct gd_element_place places[GD_ELEMENT_PLACES_MAX];
    struct gd_run *run = replay->run;
    int n_places = gd_element_places(run->open_run, &run->layout, submission, places);
    bool is_inline = submission->delivery != GD_IN_SLOT;
    int result = n_places < 0 ? 0 : check_elements(recorded, places, n_places, ret_error);
    if (result < 0) {
        free(submission);
        return result;
    }
    result = gd_run_submit_consume(run, submission, ret_error);
    replay->refused = result == -EBADMSG;
    if (result < 0)
        return result;
    if (is_inline) {
        result = take_payload(run, recorded, ret_error);
        replay->refused = result == -EBADMSG;
        return result;
    }
    for (int i = 0; i < n_places; i++)
        memcpy(run->memory.base + places[i].offset, recorded->elements[places[i].stream].bytes.data, places[i].bytes);
    return 0;
}

int gd_replay_submit(struct gd_replay *replay, const struct gd_recorded *recorded, struct gd_error *ret_error) {
    replay->refused = false;
    struct gd_submission *submission = NULL;
    int result = decode_submission(replay, recorded, &submission, ret_error);
    if (!submission)
        return result;
    result = submit_consume(replay, submission, recorded, ret_error);
    return result < 0 ? result : commit_all(replay);
}

int gd_replay_end(struct gd_replay *replay, bool open_ended) {
    struct gd_run *run = replay->run;
    gd_run_stop(run, open_ended);
    int result = commit_all(replay);
    if (result == 0)
        result = wait_until(replay, can_go_on);
    if (result < 0)
        return result;
    gd_run_end(run);
    return wait_until(replay, is_written);
}
