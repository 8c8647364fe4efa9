#include "event_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "event_output.h"
#include "fault.h"
#include "log.h"
#include "writer_thread.h"

enum {
    GATHER_MS = 100,       // records gather this long before a write: ten writes a second, well under a reader's poll
    RETRY_FIRST_MS = 100,  // after an error, doubling ...
    RETRY_LAST_MS = 5000,  // ... up to this
    TROUBLE_KINDS_MAX = 4, // log lines until it is over, however errors take turns
    // Of a resumed run's file, what may be missing: what fills it takes a 128th of the room, also in the daemon's own
    // directory, and how much was written is what the run's memory says.
    FILLED_BYTES_MAX = 1 << 30,
};

// Since the last batch that went well.
struct trouble {
    int retry_ms;                 // the last pause, 0: none
    int kinds[TROUBLE_KINDS_MAX]; // those that were logged: results of gd_event_output_write()
    int n_kinds;
};

struct gd_event_file {
    struct gd_event_file_options options;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int accepted; // see gd_event_file_is_accepted(); guarded by the mutex, as are the flags
    struct gd_error refusal;
    char *path;   // of a file that was created: set by the thread before it is accepted
    bool closing; // its descriptor is not to be used any more
    bool finishing;
    bool abandoned;
    bool done;
    _Atomic bool asleep;           // the thread waits for something to write
    struct gd_event_output output; // the thread's own, as is the trouble
    struct trouble trouble;
};

int gd_event_file_check(int fd, bool resumes, uint64_t written_bytes, struct gd_error *ret_error) {
    struct stat status;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file", "event_file is not a regular file");
    if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file", "event_file is not open for writing");
    if ((flags & O_APPEND) && !resumes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file",
                            "event_file is open with O_APPEND, which makes pwrite ignore its offset");
    if (written_bytes > FILLED_BYTES_MAX && (uint64_t)status.st_size < written_bytes - FILLED_BYTES_MAX)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file",
                            "event_file has %llu bytes, the run has written %llu; at most %d may be missing",
                            (unsigned long long)status.st_size, (unsigned long long)written_bytes, FILLED_BYTES_MAX);
    return 0;
}

static uint64_t pending_bytes(const struct gd_event_file *file) {
    return file->output.appended_bytes - file->output.written_bytes;
}

static bool is_half_full(const struct gd_event_file *file) {
    return pending_bytes(file) >= file->options.outbox_bytes / 2;
}

// Whether the next batch should be written without waiting for more. The mutex is held.
static bool is_urgent(const struct gd_event_file *file) {
    return file->finishing || is_half_full(file);
}

static bool is_abandoned(const struct gd_event_file *file) {
    return file->abandoned;
}

// Waits for `milliseconds`, less if `enough` says so. The mutex is held.
static void wait_for(struct gd_event_file *file, int milliseconds, bool (*enough)(const struct gd_event_file *)) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(milliseconds % 1000) * 1000000;
    until.tv_sec += milliseconds / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (!enough(file))
        if (pthread_cond_timedwait(&file->changed, &file->mutex, &until) == ETIMEDOUT)
            return;
}

// Waits for records and lets more of them gather. The mutex is held.
static void gather(struct gd_event_file *file) {
    atomic_store(&file->asleep, true); // before the look at appended_bytes, as gd_event_file_append() does it after
    while (pending_bytes(file) == 0 && !file->finishing)
        pthread_cond_wait(&file->changed, &file->mutex);
    atomic_store(&file->asleep, false);
    wait_for(file, GATHER_MS, is_urgent);
}

// One batch. Returns what gd_event_output_write() does. The mutex is held, but not while writing.
static int write_batch(struct gd_event_file *file) {
    pthread_mutex_unlock(&file->mutex);
    int result = gd_event_output_write(&file->output);
    file->options.notify(file->options.notify_context);
    pthread_mutex_lock(&file->mutex);
    return result;
}

// Whether this kind of trouble is new since the last good batch.
static bool is_news(struct trouble *trouble, int result) {
    for (int i = 0; i < trouble->n_kinds; i++)
        if (trouble->kinds[i] == result)
            return false;
    if (trouble->n_kinds == TROUBLE_KINDS_MAX)
        return false;
    trouble->kinds[trouble->n_kinds++] = result;
    return true;
}

static void count_error(const struct gd_event_file *file) {
    if (file->options.counters)
        atomic_fetch_add_explicit(&file->options.counters->write_errors, 1, memory_order_relaxed);
}

// Sets the pause after a batch that came to `result`; logs where trouble begins, is of another kind, and ends.
static void turn_trouble(struct gd_event_file *file, int result) {
    struct trouble *trouble = &file->trouble;
    unsigned long long at = file->output.written_bytes;
    if (result == 0) {
        if (trouble->n_kinds > 0)
            gd_event_output_log(&file->output, GD_LOG_INFO, "writing again at byte %llu", at);
        *trouble = (struct trouble){0};
        return;
    }
    if (result != GD_EVENT_OUTPUT_SPOILT)
        count_error(file);
    if (result != GD_EVENT_OUTPUT_SPOILT && is_news(trouble, result))
        gd_event_output_log(&file->output, GD_LOG_ERROR, "not written at byte %llu: %s; trying again", at,
                            result == GD_EVENT_OUTPUT_APPENDS ? "O_APPEND is set" : strerror(-result));
    if (trouble->retry_ms == 0)
        trouble->retry_ms = RETRY_FIRST_MS;
    else
        trouble->retry_ms = 2 * trouble->retry_ms < RETRY_LAST_MS ? 2 * trouble->retry_ms : RETRY_LAST_MS;
}

static int open_file(struct gd_event_file *file, struct gd_error *ret_error) {
    file->output.fd = gd_state_directory_open_file(&file->options.place, (double)time(NULL), &file->path, ret_error);
    file->output.path = file->path;
    if (file->output.fd < 0)
        count_error(file);
    return file->output.fd < 0 ? file->output.fd : 0;
}

// Returns whether there is a file that can be written.
static bool accept_file(struct gd_event_file *file) {
    struct gd_error refusal;
    int result = file->output.fd < 0 ? open_file(file, &refusal) : 0;
    if (result == 0)
        result = gd_event_file_check(file->output.fd, file->options.appended_bytes > 0, file->options.written_bytes,
                                     &refusal);

    pthread_mutex_lock(&file->mutex);
    file->accepted = result == 0 ? 1 : result;
    if (result < 0)
        file->refusal = refusal;
    pthread_mutex_unlock(&file->mutex);
    if (result == 0)
        file->options.notify(file->options.notify_context);
    return result == 0;
}

static void write_records(struct gd_event_file *file) {
    const struct trouble *trouble = &file->trouble;

    pthread_mutex_lock(&file->mutex);
    if (file->options.appended_bytes == 0) // else something may be gone from a resumed run's file: a look at once
        gather(file);
    while (!file->abandoned) {
        turn_trouble(file, write_batch(file));
        if (trouble->retry_ms > 0)
            wait_for(file, trouble->retry_ms, is_abandoned);
        else if (file->finishing && pending_bytes(file) == 0)
            break;
        else
            gather(file);
    }
    pthread_mutex_unlock(&file->mutex);
}

static void *run_thread(void *argument) {
    struct gd_event_file *file = argument;

    if (accept_file(file))
        write_records(file);
    pthread_mutex_lock(&file->mutex);
    file->closing = true;
    pthread_mutex_unlock(&file->mutex);
    if (file->output.fd >= 0)
        close(file->output.fd); // may hang like a write, so it belongs to this thread as well
    pthread_mutex_lock(&file->mutex);
    file->done = true;
    pthread_mutex_unlock(&file->mutex);
    file->options.notify(file->options.notify_context);
    return NULL;
}

int gd_event_file_new(const struct gd_event_file_options *options, struct gd_event_file **ret_file) {
    struct gd_event_file *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->options = *options;
    file->output = (struct gd_event_output){
        .fd = options->fd,
        .run = options->place.run,
        .outbox = options->outbox,
        .outbox_bytes = options->outbox_bytes,
        .step_records_max = options->step_records_max,
        .written_word = options->written_word,
        .wall_time = options->wall_time,
        .counters = options->counters,
        .appended_bytes = options->appended_bytes,
        .written_bytes = options->written_bytes,
    };
    atomic_store_explicit((_Atomic uint64_t *)options->written_word, options->written_bytes, memory_order_release);
    int result = gd_writer_thread_start(&file->thread, &file->mutex, &file->changed, run_thread, file);
    if (result < 0) {
        free(file);
        return result;
    }
    *ret_file = file;
    return 0;
}

int gd_event_file_is_accepted(struct gd_event_file *file, struct gd_error *ret_error) {
    pthread_mutex_lock(&file->mutex);
    int accepted = file->accepted;
    if (accepted < 0)
        *ret_error = file->refusal;
    pthread_mutex_unlock(&file->mutex);
    return accepted;
}

const char *gd_event_file_path(const struct gd_event_file *file) {
    return file->path;
}

bool gd_event_file_where(struct gd_event_file *file, char *ret_path, size_t size) {
    char link[64];
    ssize_t bytes = -1;
    pthread_mutex_lock(&file->mutex); // so that it is not closed now, and its number another file's
    if (file->accepted > 0 && !file->closing) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", file->output.fd);
        bytes = readlink(link, ret_path, size);
    }
    pthread_mutex_unlock(&file->mutex);
    if (bytes <= 0 || (size_t)bytes >= size)
        return false;
    ret_path[bytes] = '\0';
    return true;
}

// No lock for what is appended while more gathers: the thread wakes by itself then. The store comes before the thread
// looks whether the file was cut off, or the next look at gd_event_file_written() comes after: see event_output.c.
void gd_event_file_append(struct gd_event_file *file, uint64_t appended_bytes) {
    atomic_store(&file->output.appended_bytes, appended_bytes);
    gd_fault_tell_bytes(appended_bytes, file->output.written_bytes);
    if (!atomic_load(&file->asleep) && !is_half_full(file))
        return;
    pthread_mutex_lock(&file->mutex);
    pthread_cond_signal(&file->changed);
    pthread_mutex_unlock(&file->mutex);
}

uint64_t gd_event_file_written(struct gd_event_file *file) {
    return atomic_load(&file->output.written_bytes);
}

uint64_t gd_event_file_waiting(struct gd_event_file *file) {
    uint64_t written = atomic_load(&file->output.written_bytes); // first: what is appended only grows
    return atomic_load(&file->output.appended_bytes) - written;
}

void gd_event_file_finish(struct gd_event_file *file) {
    pthread_mutex_lock(&file->mutex);
    file->finishing = true;
    pthread_cond_signal(&file->changed);
    pthread_mutex_unlock(&file->mutex);
}

bool gd_event_file_is_done(struct gd_event_file *file) {
    pthread_mutex_lock(&file->mutex);
    bool done = file->done;
    pthread_mutex_unlock(&file->mutex);
    return done;
}

void gd_event_file_abandon(struct gd_event_file *file) {
    pthread_mutex_lock(&file->mutex);
    file->abandoned = true;
    file->finishing = true;
    pthread_cond_signal(&file->changed);
    pthread_mutex_unlock(&file->mutex);
}

void gd_event_file_free(struct gd_event_file *file) {
    if (!file)
        return;
    pthread_join(file->thread, NULL);
    pthread_cond_destroy(&file->changed);
    pthread_mutex_destroy(&file->mutex);
    free(file->path);
    free(file);
}
