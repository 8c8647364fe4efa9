#include "event_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"
#include "log.h"

enum {
    GATHER_MS = 100,        // records gather this long before a write: ten writes a second, well under a reader's poll
    RETRY_FIRST_MS = 100,   // after an error, doubling ...
    RETRY_LAST_MS = 5000,   // ... up to this
    STACK_BYTES = 64 << 10, // writes and log lines; above PTHREAD_STACK_MIN
};

struct gd_event_file {
    struct gd_event_file_options options;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int accepted; // see gd_event_file_is_accepted(); guarded by the mutex, as are the flags
    struct gd_error refusal;
    char *path; // of a file that was created: set by the thread before it is accepted
    bool finishing;
    bool abandoned;
    bool done;
    _Atomic uint64_t appended_bytes; // stored by whoever appends
    _Atomic uint64_t written_bytes;  // stored by the thread alone
    _Atomic bool asleep;             // the thread waits for something to write
};

int gd_event_file_check(int fd, uint64_t written_bytes, struct gd_error *ret_error) {
    struct stat status;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file", "event_file is not a regular file");
    if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH))
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file", "event_file is not open for writing");
    if (flags & O_APPEND)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file",
                            "event_file is open with O_APPEND, which makes pwrite ignore its offset");
    if ((uint64_t)status.st_size < written_bytes)
        return gd_error_set(ret_error, GD_ERROR_INVALID, "event_file",
                            "event_file has %llu bytes, the run has written %llu", (unsigned long long)status.st_size,
                            (unsigned long long)written_bytes);
    return 0;
}

static uint64_t pending_bytes(const struct gd_event_file *file) {
    return file->appended_bytes - file->written_bytes;
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

// Writes up to `end`, stopping at the first error. Returns 0 or a negative errno; written_bytes says how far it came.
static int write_until(struct gd_event_file *file, uint64_t end) {
    uint64_t written = file->written_bytes;
    while (written < end) {
        uint64_t at = written % file->options.outbox_bytes;
        uint64_t bytes = end - written;
        if (bytes > file->options.outbox_bytes - at)
            bytes = file->options.outbox_bytes - at;
        gd_fault_reach(GD_FAULT_WRITE_BEGUN);
        ssize_t result =
            pwrite(file->options.fd, file->options.outbox + at, gd_fault_write_bytes(bytes), (off_t)written);
        if (result < 0 && errno == EINTR)
            continue;
        if (result <= 0)
            return result < 0 ? -errno : -EIO;
        written += (uint64_t)result;
        gd_fault_reach(GD_FAULT_WRITE_UNTOLD);
        // the shared word first: once the other says that there is room, the bytes below it may be overwritten, and
        // nobody who resumes the run may want them again
        atomic_store_explicit((_Atomic uint64_t *)file->options.written_word, written, memory_order_release);
        atomic_store_explicit(&file->written_bytes, written, memory_order_release);
        gd_fault_tell_bytes(file->appended_bytes, written);
        gd_fault_reach(GD_FAULT_WRITE_COUNTED);
    }
    return 0;
}

// One batch. Returns 0 or a negative errno. The mutex is held, but not while writing.
static int write_batch(struct gd_event_file *file) {
    uint64_t end = file->appended_bytes;
    pthread_mutex_unlock(&file->mutex);
    int result = write_until(file, end);
    file->options.notify(file->options.notify_context);
    pthread_mutex_lock(&file->mutex);
    return result;
}

// The pause after `result`, given the one before; logs where trouble begins and ends.
static int next_retry_ms(const struct gd_event_file *file, int result, int retry_ms) {
    if (result == 0) {
        if (retry_ms > 0)
            gd_log(GD_LOG_INFO, "event file: writing again at byte %llu", (unsigned long long)file->written_bytes);
        return 0;
    }
    if (retry_ms == 0) {
        gd_log(GD_LOG_ERROR, "event file: write at byte %llu: %s; trying again",
               (unsigned long long)file->written_bytes, strerror(-result));
        return RETRY_FIRST_MS;
    }
    return 2 * retry_ms < RETRY_LAST_MS ? 2 * retry_ms : RETRY_LAST_MS;
}

static int open_file(struct gd_event_file *file, struct gd_error *ret_error) {
    file->options.fd = gd_state_directory_open_file(&file->options.place, (double)time(NULL), &file->path, ret_error);
    return file->options.fd < 0 ? file->options.fd : 0;
}

// Returns whether there is a file that can be written.
static bool accept_file(struct gd_event_file *file) {
    struct gd_error refusal;
    int result = file->options.fd < 0 ? open_file(file, &refusal) : 0;
    if (result == 0)
        result = gd_event_file_check(file->options.fd, file->options.written_bytes, &refusal);

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
    int retry_ms = 0;

    pthread_mutex_lock(&file->mutex);
    while (!file->abandoned && !(file->finishing && pending_bytes(file) == 0)) {
        gather(file);
        retry_ms = next_retry_ms(file, write_batch(file), retry_ms);
        if (retry_ms > 0)
            wait_for(file, retry_ms, is_abandoned);
    }
    pthread_mutex_unlock(&file->mutex);
}

static void *run_thread(void *argument) {
    struct gd_event_file *file = argument;

    if (accept_file(file))
        write_records(file);
    if (file->options.fd >= 0)
        close(file->options.fd); // may hang like a write, so it belongs to this thread as well
    pthread_mutex_lock(&file->mutex);
    file->done = true;
    pthread_mutex_unlock(&file->mutex);
    file->options.notify(file->options.notify_context);
    return NULL;
}

static int start_thread(struct gd_event_file *file) {
    pthread_attr_t attributes;
    pthread_condattr_t clock;

    pthread_mutex_init(&file->mutex, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&file->changed, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int result = pthread_create(&file->thread, &attributes, run_thread, file);
    pthread_attr_destroy(&attributes);
    return -result;
}

int gd_event_file_new(const struct gd_event_file_options *options, struct gd_event_file **ret_file) {
    struct gd_event_file *file = calloc(1, sizeof(*file));
    if (!file)
        return -ENOMEM;
    file->options = *options;
    file->appended_bytes = options->written_bytes;
    file->written_bytes = options->written_bytes;
    int result = start_thread(file);
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

// No lock for what is appended while more gathers: the thread wakes by itself then.
void gd_event_file_append(struct gd_event_file *file, uint64_t appended_bytes) {
    atomic_store(&file->appended_bytes, appended_bytes);
    gd_fault_tell_bytes(appended_bytes, file->written_bytes);
    if (!atomic_load(&file->asleep) && !is_half_full(file))
        return;
    pthread_mutex_lock(&file->mutex);
    pthread_cond_signal(&file->changed);
    pthread_mutex_unlock(&file->mutex);
}

uint64_t gd_event_file_written(struct gd_event_file *file) {
    return atomic_load_explicit(&file->written_bytes, memory_order_acquire);
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
